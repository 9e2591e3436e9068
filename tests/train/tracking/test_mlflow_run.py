"""A job's run in MLflow, asked of a real server: the log's numbers, restarts, searches, failures, no server at all."""

import os
import re
import socket
import threading
import time

import pytest

from kennel import metrics

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own imports
]
IMPATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
ARN = "arn:aws:sagemaker:eu-west-1:123456789012:mlflow-tracking-server/pets"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    """What a job sets for MLflow in this process ends with its test."""
    from kennel_train.tracking import tracker

    for name in (*tracker.DEFAULTS, "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "")
        del os.environ[name]


def logged(log: str, metric: metrics.Metric) -> list[tuple[int, str]]:
    """(epoch, value) of the log's lines of epochs."""
    return [(int(at), value) for at, value in re.findall(rf"^epoch=(\d+) .*?{metric.regex}", log, re.MULTILINE)]


def test_a_run_has_the_numbers_of_the_log_the_settings_the_model_and_the_report(job, server, capsys):
    job.photos("train")
    job.photos("test", {"red": 3, "green": 3})
    job.configure(epochs="3", mlflow=server.uri, mlflow_experiment="whole", learning_rate="0.05")
    arn = "arn:aws:sagemaker:eu-west-1:123456789012:training-job/pets-1"
    job.environ = {"TRAINING_JOB_NAME": "pets-1", "TRAINING_JOB_ARN": arn}
    job.main()
    log = capsys.readouterr().out
    (run,) = server.runs("whole")
    assert f"mlflow: experiment whole, run {run.id}: {server.uri}/#/experiments/" in log
    assert "warning" not in log
    for metric in (metrics.TRAIN_LOSS, metrics.VALIDATION_LOSS, metrics.VALIDATION_ACCURACY):
        history = run.history(metric.name.replace(":", "/"))
        assert [(step, f"{value:.6g}") for step, value in history] == logged(log, metric)
        assert len(history) == 3
    (accuracy,) = re.findall(metrics.TEST_ACCURACY.regex, log)
    assert f"{run.metrics['model/test_accuracy']:.6g}" == accuracy
    assert (run.status, run.row["info"]["run_name"]) == ("FINISHED", "pets-1")
    assert (run.params["epochs"], run.params["learning_rate"], run.params["strategy"]) == ("3", "0.05", "probe")
    assert run.tags["sagemaker.training_job_arn"] == arn
    assert run.files() >= {"report.html", "report.json", "audit.json", "model"}
    assert run.files("model") == {f"model/{path.name}" for path in (job.base / "model").iterdir()}


def test_a_job_that_is_started_again_goes_on_with_its_run(job, server):
    stop = "def on_epoch_end(epoch, metrics):\n    epoch == 3 and os.kill(os.getpid(), signal.SIGTERM)\n"
    (job.base / "code").mkdir()
    (job.base / "code" / "stop.py").write_text(f"import os, signal\n{stop}")
    job.photos("train")
    job.configure(epochs="6", sagemaker_program="stop.py")
    job.environ = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_EXPERIMENT_NAME": "restarted"}
    for status, epochs in (("KILLED", 3), ("FINISHED", 6)):
        job.main()
        (run,) = server.runs("restarted")
        assert run.status == status
        assert [step for step, _ in run.history("validation/loss")] == list(range(1, epochs + 1))
        assert "model/manifest.json" in run.files("model")


def test_each_trial_of_a_search_is_a_child_run(job, server):
    job.photos("train")
    job.configure(trials="3", search_space="learning_rate=0.001..0.1", mlflow=server.uri, mlflow_experiment="search")
    job.main()
    parent, *children = server.runs("search")
    assert [run.tags["mlflow.parentRunId"] for run in children] == [parent.id] * 3
    assert {run.status for run in (parent, *children)} == {"FINISHED"}
    assert len({run.params["learning_rate"] for run in children}) == 3
    assert all([step for step, _ in run.history("validation/accuracy")] == [1, 2] for run in children)
    assert parent.params["trials"] == "3"
    best = max(run.metrics["model/validation_accuracy"] for run in children)
    assert parent.metrics["model/validation_accuracy"] == best
    assert "trials.json" in parent.files()


def test_a_job_that_fails_ends_the_run_that_it_was_given_with_its_reason(job, server):
    where = server.ask("experiments/create", {"name": "failed"})["experiment_id"]
    made = server.ask("runs/create", {"experiment_id": where, "run_name": "given", "start_time": 1})["run"]
    job.environ = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_RUN_ID": made["info"]["run_id"]}
    (job.data / "train").mkdir()
    reason = job.fail()
    (run,) = server.runs("failed")
    assert (run.id, run.status) == (made["info"]["run_id"], "FAILED")
    assert run.tags["mlflow.note.content"] == reason.splitlines()[0]


def test_sagemakers_own_server_is_named_by_its_arn(job, server, tmp_path):
    """Its files go from the job to their place, S3 there and a folder here."""
    server.ask("experiments/create", {"name": "arn", "artifact_location": f"file://{tmp_path}/files"})
    job.photos("train")
    job.configure(epochs="1", mlflow=ARN, mlflow_experiment="arn")
    credentials = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "none")
    job.environ = {"SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT": server.uri, **credentials}
    job.main()
    (run,) = server.runs("arn")
    assert run.status == "FINISHED"
    assert list(tmp_path.glob("files/*/artifacts/model/manifest.json"))


def test_of_several_processes_one_has_the_run(job, server):
    job.photos("train")
    job.configure(epochs="1", mlflow=server.uri, mlflow_experiment="ranks")
    job.environ = {"KENNEL_PROCESSES_PER_HOST": "2"}
    code, log = job.run()
    assert code == 0, log
    (run,) = server.runs("ranks")
    assert run.status == "FINISHED"
    assert [step for step, _ in run.history("validation/loss")] == [1]


def test_an_epoch_that_is_logged_twice_is_there_once(server, tmp_path):
    """As at a job's end, when the server may not have taken the first yet."""
    from kennel.layout import Layout
    from kennel_train.contract.stop import Never
    from kennel_train.tracking.tracker import Destination, tracking

    to = Destination(server.uri, "twice", "pets", "", {}, ())
    with tracking(to, Layout(tmp_path), Never()) as tracker:
        for epoch in (1, 2, 1, 2):
            time.sleep(0.01)  # the same moment, step and value are one point to the server anyway
            tracker.epoch({"stage": "probe", "epoch": epoch, "stage_epoch": epoch, "validation:loss": 1 / epoch})
    (run,) = server.runs("twice")
    assert run.history("validation/loss") == [(1, 1.0), (2, 0.5)]


@pytest.fixture(params=["refuses", "is silent", "is no MLflow"])
def no_server(request):
    """The port of one that no run can be sent to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        if request.param == "refuses":
            listening.close()
        if request.param == "is no MLflow":

            def answer() -> None:
                while True:
                    try:
                        client, _ = listening.accept()
                    except OSError:
                        return
                    with client:
                        client.recv(10_000)
                        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")

            threading.Thread(target=answer, daemon=True).start()
        yield port
        if request.param == "is no MLflow":
            listening.shutdown(socket.SHUT_RDWR)


def test_without_a_server_the_job_goes_on_and_says_so_once(job, no_server, capsys):
    job.photos("train")
    job.configure(epochs="2")
    uri = f"http://me:abracadabra@127.0.0.1:{no_server}"
    job.environ = {**IMPATIENT, "MLFLOW_TRACKING_URI": uri}
    job.main()
    printed = "".join(capsys.readouterr())
    assert (job.base / "model" / "manifest.json").exists()
    assert printed.count("warning: MLflow at http://***@127.0.0.1") == 1
    assert printed.count("warning") == 1
    (line,) = re.findall(r"^mlflow: not sent: (.*)$", printed, re.MULTILINE)
    assert {"the run", "files", "the end"} <= set(line.split(", ")), "in any order: one may still be under way"
    assert "abracadabra" not in printed


def test_a_token_that_cannot_be_sent_is_no_part_of_the_warning(job, capsys):
    """The end of a line, that a file left there, has it quoted by what sends it."""
    job.environ = {**IMPATIENT, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_TRACKING_TOKEN": "shibboleth\n"}
    job.fail()
    printed = "".join(capsys.readouterr())
    assert "return character(s) in header value: 'Bearer ***" in printed
    assert "shibboleth" not in printed


def test_a_job_that_names_no_server_imports_no_mlflow(job):
    job.environ = {"PYTHONPROFILEIMPORTTIME": "1"}
    _, log = job.run()
    assert job.failure.startswith("there is no channel"), log
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in log.splitlines() if "import time:" in line
    }
    assert {"kennel_train", "torch"} <= imported
    assert imported.isdisjoint({"mlflow", "sagemaker_mlflow", "databricks", "fastapi"})
