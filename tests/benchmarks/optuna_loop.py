"""Optuna's usual loop: `study.optimize`, its MLflow callback, and the usual training loop as objective."""

from __future__ import annotations

import json
import time

from tests.benchmarks import usual


def main() -> None:
    """Train every network once; print when the first trial began and the last ended, and the scores."""
    import mlflow
    import optuna
    from optuna_integration import MLflowCallback

    experiment, images, root = usual.read_arguments()
    networks = usual.networks(experiment)
    callback = MLflowCallback(tracking_uri=f"sqlite:///{root}/mlflow.db", metric_name="val_accuracy")

    @callback.track_in_mlflow()  # type: ignore[untyped-decorator]  # Optuna's has no types
    def objective(trial: optuna.Trial) -> float:
        name = trial.suggest_categorical("network", list(networks))
        mlflow.log_params(usual.parameters(networks[name]))
        metrics: dict[str, float] = {}
        for epoch, metrics in enumerate(usual.train(networks[name], images, experiment.data), start=1):
            mlflow.log_metrics(metrics, step=epoch)
        return metrics["val_accuracy"]

    sampler = optuna.samplers.GridSampler({"network": list(networks)})
    study = optuna.create_study(study_name=experiment.name, direction="maximize", sampler=sampler)
    began = time.time()
    study.optimize(objective, n_trials=len(networks), callbacks=[callback])
    ended = time.time()
    scores = {trial.params["network"]: trial.value for trial in study.trials}
    print(json.dumps({"began": began, "ended": ended, "val_accuracy": scores}))  # noqa: T201  # its result


if __name__ == "__main__":
    main()
