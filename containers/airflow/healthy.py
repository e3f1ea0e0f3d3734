#!/usr/bin/env -S python3 -I
"""healthy.py COMPONENT: exit 0 while the API server finds the component (scheduler, dag_processor, triggerer) healthy.

`airflow jobs check` would load all of Airflow, five seconds of a core each time.
"""

import json
import os
import sys
import urllib.request

url = os.environ["AIRFLOW_HEALTH_URL"]
with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - a fixed address of the stack
    health = json.load(answer)
sys.exit(health[sys.argv[1]]["status"] != "healthy")
