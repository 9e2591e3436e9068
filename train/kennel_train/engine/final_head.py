"""The head of a probe once it is chosen: where validation was cut from train, it learns from those photos, too.

By the L2 that cross-validation chose, or by as many epochs of SGD as were best.
"""

from kennel_train.engine import logistic_regression, loop, strategies
from kennel_train.engine.batches import FeatureDataset
from kennel_train.engine.progress import Run, StagePlan
from kennel_train.engine.strategies import Trained, Training
from kennel_train.measure.callbacks import NO_CALLBACK


def fit(job: Training, trained: Trained) -> bool:
    """Where a probe is the best: its head learns from train and validation, as long as it learned from train alone.

    Returns:
        whether the classifier's head is another one now.
    """
    hp = job.context.hp
    last = trained.best.stage == "probe" and hp.final == "all" and job.splits.held_out
    if not last or job.context.cluster.any(job.over()):
        return False
    parts = strategies.extract(job)
    whole = FeatureDataset.joined(parts["train"], parts["validation"])
    weights = strategies.class_weights(job, "train", "validation")
    with job.context.timing("probe of all"):
        if hp.solver == "lbfgs":
            l2 = trained.rows[trained.best.epoch - 1]["l2"]
            cluster = job.context.cluster
            found = logistic_regression.solve(whole, weights, hp.label_smoothing, l2, hp.seed, cluster, job.over)
            job.classifier.head.load_state_dict(found.state)
            return True
        plan = StagePlan("probe", strategies.probe_epochs(hp), 0, max(1, len(whole.index)), weights, job.pretrained)
        job.classifier.head.load_state_dict(trained.head)
        run = Run(job.classifier.head, whole, job.context, plan)
        while run.epoch <= trained.best.epoch:
            for _ in loop.steps(run, NO_CALLBACK, loop.never):
                pass
            run.epoch, run.step = run.epoch + 1, 0
        job.classifier.head.load_state_dict(run.judged.state_dict())
    return True
