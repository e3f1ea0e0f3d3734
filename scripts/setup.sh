#!/usr/bin/env bash
# Set-up of the project: .venv with pinned packages, Java, the jars for Spark.
#
#   scripts/setup.sh            what the jobs need           (make setup)
#   scripts/setup.sh dev        … and tests and checks       (make test)
#   scripts/setup.sh bench      … and the benchmark's contenders
#   scripts/setup.sh airflow    … and Airflow in .venv-airflow
#
# Nothing is done twice: a stamp in .venv holds a hash of everything that decides
# about an installation. Missing system packages (python3-venv, Java) are installed
# with apt-get as root or with a sudo that asks no password; otherwise one line says
# what to install, and the exit code is 2.
set -euo pipefail
case "$#:${1:-}" in
  0: | 1: | 1:dev | 1:bench | 1:airflow) ;;
  1:-h | 1:--help)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
    exit ;;
  *)
    printf 'setup: unknown arguments: %s; expected dev, bench, airflow, or nothing\n' "$*" >&2
    exit 2 ;;
esac
cd "$(dirname "$0")/.."
unset PYTHONPATH PYTHONHOME
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

say() { printf 'setup: %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 2; }

# -- Python -------------------------------------------------------------------

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      # Not the environment that happens to be active: it may be the one to be remade.
      "$candidate" -c 'import sys; print(sys._base_executable)'
      return
    fi
  done
  return 1
}

# -- Java: 17 or 21, the versions Spark 4 is tested with -----------------------

is_java() {
  [ -x "$1/bin/java" ] && "$1/bin/java" -version 2>&1 | grep -Eq 'version "(17|21)[."]'
}

find_java() {
  local home
  if [ -n "${JAVA_HOME:-}" ] && is_java "$JAVA_HOME"; then echo "$JAVA_HOME"; return; fi
  if [ "$(uname)" = Darwin ]; then
    for home in "$(/usr/libexec/java_home -v 17 2>/dev/null || true)" \
      /opt/homebrew/opt/openjdk@17/libexec/openjdk.jdk/Contents/Home \
      /usr/local/opt/openjdk@17/libexec/openjdk.jdk/Contents/Home; do
      if [ -n "$home" ] && is_java "$home"; then echo "$home"; return; fi
    done
  elif command -v java >/dev/null; then
    home=$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")
    if is_java "$home"; then echo "$home"; return; fi
  fi
  for home in /usr/lib/jvm/*-17-* /usr/lib/jvm/*-21-* /usr/lib/jvm/*17* /usr/lib/jvm/*21*; do
    if is_java "$home"; then echo "$home"; return; fi
  done
  return 1
}

# -- System packages ------------------------------------------------------------

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt_install() { # one argument per package; "a|b" means b where a is not offered
  local wanted=() choice log
  if ! command -v apt-get >/dev/null || { [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; }; then
    stop "please install: ${*%%|*} (for example: sudo apt-get install ${*%%|*}), then run make again"
  fi
  say "installing system packages with apt-get: ${*%%|*} …"
  log=$(mktemp)
  if ! as_root apt-get update -qq >"$log" 2>&1 </dev/null; then
    tail -n 5 "$log" >&2
  fi
  for choice in "$@"; do
    if [ -n "$(apt-cache policy "${choice%%|*}" 2>/dev/null | grep -E 'Candidate: [^(]')" ]; then
      wanted+=("${choice%%|*}")
    else
      wanted+=("${choice##*|}")
    fi
  done
  if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${wanted[@]}" >"$log" 2>&1 </dev/null; then
    tail -n 15 "$log" >&2
    rm -f "$log"
    stop "apt-get could not install: ${wanted[*]}; install them yourself, then run make again"
  fi
  rm -f "$log"
}

# -- Python packages --------------------------------------------------------------

pip_install() {
  # Only the lines that show progress; everything else where pip fails.
  local log
  log=$(mktemp)
  if ! "${environment:-.venv}/bin/python" -m pip install --progress-bar off "$@" </dev/null 2>&1 | tee "$log" |
    { grep --line-buffered -E '^ *(Downloading|Building wheel|Installing collected)' || true; } |
    cut -c 1-100 | sed -e 's/^ */setup:   /'; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    printf 'setup: pip failed (see above); run make again when the cause is mended\n' >&2
    exit 1
  fi
  rm -f "$log"
}

hash_of() {
  # The path is part of it: a virtual environment that was moved does not work.
  { pwd; cat -- "$@"; } | .venv/bin/python -c \
    'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

is_done() { [ "$(cat ".venv/.done-$1" 2>/dev/null)" = "$2" ]; }

layer() { # NAME FILE: the packages of one requirements file on top of the others
  local want
  want=$(hash_of requirements.txt "$2")
  if ! is_done "$1" "$want"; then
    say "installing the packages of $2 …"
    pip_install --require-hashes -r "$2"
    echo "$want" >".venv/.done-$1"
  fi
}

airflow_environment() {
  local want
  want=$(hash_of requirements-build.txt requirements-airflow.txt)
  if [ "$(cat .venv-airflow/.done 2>/dev/null)" != "$want" ]; then
    say "installing Airflow into .venv-airflow (1 to 2 minutes) …"
    rm -rf .venv-airflow
    "$(.venv/bin/python -c 'import sys; print(sys._base_executable)')" -m venv .venv-airflow
    environment=.venv-airflow pip_install --require-hashes -r requirements-build.txt
    environment=.venv-airflow pip_install --require-hashes --no-build-isolation -r requirements-airflow.txt
    echo "$want" >.venv-airflow/.done
  fi
}

# -- The set-up -------------------------------------------------------------------

# Two makes at once would spoil each other's .venv.
if command -v flock >/dev/null; then
  exec 9>.setup.lock
  flock -n 9 || { say "waiting for another set-up of this project …"; flock 9; }
fi

# Moved, half-made, or its Python is gone: a virtual environment does not recover from these.
if [ -d .venv ] && ! { [ "$(cat .venv/.made-for 2>/dev/null)" = "$PWD" ] &&
  .venv/bin/python -c 'import pip' >/dev/null 2>&1; }; then
  say "removing .venv: it was made for another place, or its Python is gone"
  rm -rf .venv
fi

needed=()
if ! [ -d .venv ]; then
  python=$(find_python) ||
    stop "please install Python 3.11 or newer (for example: sudo apt-get install python3), or set PYTHON, then run make again"
  if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    needed+=("python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv|python3-venv")
  fi
fi
if ! java_home=$(find_java); then
  if [ "$(uname)" = Darwin ]; then
    stop "please install Java 17: brew install openjdk@17, then run make again"
  fi
  needed+=("openjdk-17-jre-headless|openjdk-21-jre-headless")
fi
if [ ${#needed[@]} -gt 0 ]; then
  apt_install "${needed[@]}"
  java_home=$(find_java) || stop "Java 17 or 21 was installed but not found; set JAVA_HOME to its folder"
fi

if ! [ -d .venv ]; then
  say "making .venv with $("$python" --version) …"
  "$python" -m venv .venv
  echo "$PWD" >.venv/.made-for
fi

runtime=$(hash_of requirements-build.txt requirements.txt requirements.in pyproject.toml)
if ! is_done runtime "$runtime"; then
  say "installing pinned packages (PySpark alone is 450 MB: the first time takes some minutes) …"
  pip_install --require-hashes -r requirements-build.txt
  pip_install --require-hashes --no-build-isolation -r requirements.txt
  pip_install --no-deps --no-build-isolation -e .
  echo "$runtime" >.venv/.done-runtime
fi
case "${1:-}" in
  dev) layer dev requirements-dev.txt ;;
  bench) layer bench requirements-bench.txt ;;
  airflow) airflow_environment ;;
esac

# Spark's launchers read this file, in every way a session is started: the Java that was checked above, whatever `java`
# on PATH may be, this environment's Python, and Spark's own log in a file, unless a submission says otherwise.
# In the C locale, which is that of a service that sets none, Java takes names of files for ASCII and finds no other.
# The stored classes (jars/share_classes.py) serve only where no folder with files is on the class path, as Spark's conf
# is; an empty one stands in for it until somebody puts a file of their own there.
spark=$(echo .venv/lib/python3*/site-packages/pyspark)
mkdir -p "$spark/conf" "$spark/no-conf"
cat >"$spark/conf/spark-env.sh" <<END
if [ -x "$java_home/bin/java" ]; then export JAVA_HOME="$java_home"; fi
export PYSPARK_PYTHON="\${PYSPARK_PYTHON:-$PWD/.venv/bin/python}"
case "\${LC_ALL:-\${LC_CTYPE:-\${LANG:-C}}}" in C | POSIX) export LC_ALL=C.UTF-8 ;; esac
if [ "\$(ls "$PWD/$spark/conf")" = spark-env.sh ]; then
  options="-Dlog4j2.configurationFile='file:$PWD/jobs/log4j2.properties' -DlogFile='$PWD/var/logs/spark.log'"
  case "\${SPARK_SUBMIT_OPTS:-}" in
    *ArchiveClassesAtExit*) ;;
    *) options="-XX:SharedArchiveFile='$PWD/$spark/shared-classes.jsa' -Xlog:disable -Xlog:all=error:stderr \$options" ;;
  esac
  export SPARK_CONF_DIR="$PWD/$spark/no-conf" SPARK_SUBMIT_OPTS="\$options \${SPARK_SUBMIT_OPTS:-}"
fi
END
# Spark names that file without quotes: where the checkout's path has a space in it, it would not find it.
sed -i.before -e 's/^\( *\)\. \${SPARK_ENV_SH}$/\1. "${SPARK_ENV_SH}"/' "$spark/bin/load-spark-env.sh"
# PySpark's own find-spark-home asks the `python3` on PATH, which knows no PySpark unless
# .venv is activated; with this, .venv/bin/spark-submit works without.
echo "export SPARK_HOME=\"\${SPARK_HOME:-$PWD/$spark}\"" >.venv/bin/find-spark-home

JAVA_HOME=$java_home .venv/bin/python jars/fetch.py
.venv/bin/python jars/import_from_folders.py
JAVA_HOME=$java_home .venv/bin/python jars/share_classes.py
say "ready: $(.venv/bin/python --version), Java at $java_home"
