"""A day's work with Celery: see ../README.md for what every client does. Tasks, retries, countdowns, a chord, revoking, results as messages."""

import sys
import time

import celery
from celery.contrib.testing.worker import start_worker

app = celery.Celery("work", broker=f"amqp://guest:guest@{sys.argv[1]}//", backend="rpc://")
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=4, broker_heartbeat=10, task_default_queue="celery.work")


@app.task
def add(one, other):
    return one + other


@app.task(bind=True, max_retries=3)
def stubborn(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task(name="celery.ping")
def ping():
    return "pong"


def main():
    with start_worker(app, pool="solo", perform_ping_check=False, loglevel="error"):
        results = [add.delay(number, number) for number in range(200)]
        print("added", sum(result.get(timeout=30) for result in results))
        print("stubborn", stubborn.delay().get(timeout=30))
        began = time.monotonic()
        later = add.apply_async((1, 2), countdown=1)
        print("later", later.get(timeout=30), time.monotonic() - began >= 1)
        chain = add.s(1, 2) | add.s(3)
        print("chain", chain.delay().get(timeout=30))
        print("ping", ping.delay().get(timeout=30))
        print("inspected", [list(answer.values())[0] for answer in app.control.ping(timeout=2)])
        print("purged", app.control.purge() >= 0)
    print("closed")


main()
