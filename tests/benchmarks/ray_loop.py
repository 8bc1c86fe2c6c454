"""Ray Tune's usual loop: a `Tuner`, its MLflow logger, and the usual training loop in two trials at once."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.benchmarks import usual
from tests.benchmarks.compare import WORKERS


def main() -> None:
    """Train every network once; print when the first trial began and the last ended, and the scores."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    experiment, images, root = usual.read_arguments()
    networks = usual.networks(experiment)

    def trainable(chosen: dict[str, Any]) -> None:
        began = time.time()
        for metrics in usual.train(networks[chosen["network"]], images, experiment.data):
            tune.report(metrics | {"began": began, "ended": time.time()})

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    logger = MLflowLoggerCallback(
        tracking_uri=f"sqlite:///{root}/mlflow.db", experiment_name=experiment.name, save_artifact=False
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"network": tune.grid_search(list(networks))},
        tune_config=tune.TuneConfig(metric="val_accuracy", mode="max", max_concurrent_trials=WORKERS),
        run_config=tune.RunConfig(storage_path=str(root / "ray"), callbacks=[logger], verbose=0),
    )
    found = [result.metrics for result in tuner.fit()]
    scores = {metrics["config"]["network"]: metrics["val_accuracy"] for metrics in found}
    times = {
        "began": min(metrics["began"] for metrics in found),
        "ended": max(metrics["ended"] for metrics in found),
    }
    print(json.dumps(times | {"val_accuracy": scores}))  # noqa: T201  # its result


if __name__ == "__main__":
    main()
