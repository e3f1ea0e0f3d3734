#!/usr/bin/env bash
# master | worker [URL] | driver … | executor: the parts of a Spark cluster. Kubernetes starts the last two itself,
# with what they need in SPARK_* variables.
set -euo pipefail
part=${1:-master}
shift || true
class=$SPARK_HOME/bin/spark-class
case "$part" in
  master)
    exec "$class" org.apache.spark.deploy.master.Master --host "${SPARK_MASTER_HOST:-$(hostname)}" --port 7077 --webui-port 8080
    ;;
  worker)
    exec "$class" org.apache.spark.deploy.worker.Worker --webui-port 8081 --work-dir /opt/work \
      "${1:-${SPARK_MASTER_URL:-spark://spark-master:7077}}"
    ;;
  driver)
    exec "$SPARK_HOME/bin/spark-submit" --conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS" \
      --conf "spark.executorEnv.SPARK_DRIVER_POD_IP=$SPARK_DRIVER_BIND_ADDRESS" --deploy-mode client "$@"
    ;;
  executor)
    # Spark numbers its options: SPARK_JAVA_OPT_0, SPARK_JAVA_OPT_1, …
    mapfile -t options < <(env | sed -n 's/^SPARK_JAVA_OPT_[0-9]*=//p')
    exec "$JAVA_HOME/bin/java" "${options[@]}" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \
      -cp "${SPARK_EXTRA_CLASSPATH:+$SPARK_EXTRA_CLASSPATH:}$SPARK_HOME/jars/*" \
      org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend --driver-url "$SPARK_DRIVER_URL" \
      --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" --app-id "$SPARK_APPLICATION_ID" \
      --hostname "$SPARK_EXECUTOR_POD_IP" --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" \
      --podName "$SPARK_EXECUTOR_POD_NAME"
    ;;
  *)
    exec "$part" "$@"
    ;;
esac
