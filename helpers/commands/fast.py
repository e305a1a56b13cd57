"""`make fast`: train FastNet from scratch and see its learning curve grow, a line an epoch."""

from helpers import config, data, inference, metrics, runs, train
from helpers.analysis.claims import CLAIMED_ACCURACY
from helpers.errors import exit_cleanly

NETWORK = "FastNet"
LOWEST, WIDTH = 0.5, 50  # where a bar begins, and its characters: one a point


def place(accuracy: float) -> int:
    """The length of the bar of an accuracy."""
    return max(0, round((accuracy - LOWEST) / (1 - LOWEST) * WIDTH))


def curve_line(network: str, history: list[dict], epochs: int) -> str:
    """One line of the learning curve: a bar up to the validation accuracy, with a mark at the reference's."""
    row, goal = history[-1], place(CLAIMED_ACCURACY)
    bar = ("█" * place(row["validation_accuracy"])).ljust(WIDTH)
    marked = bar if bar[goal] != " " else f"{bar[:goal]}┊{bar[goal + 1 :]}"
    return (
        f"{row['epoch']:3d}/{epochs}  {marked}  {row['validation_accuracy']:6.2%}  "
        f"{row['seconds']:.0f} s  {train.minutes_left(history, epochs):.0f} min left"
    )


def main(profile: str = "full") -> None:
    """Train the recipe of a profile, and say how good the network is."""
    parts, device = data.train_validation(profile), train.pick_device()
    cfg = config.train_config(NETWORK, profile)
    print(f"{NETWORK}: validation accuracy from {LOWEST:.0%} to 100%; ┊ is the reference's {CLAIMED_ACCURACY:.1%}")
    store = config.CACHE / "runs"
    run = runs.train_run(NETWORK, cfg, profile, 0, device, parts, store, again=True, told=curve_line)
    _, validated = train.evaluate(run.model, parts[1])
    test = data.test(profile)
    scores = metrics.summary(inference.infer(run.model, test.images).logits, test.labels)
    print(
        f"{NETWORK} after {cfg.epochs} epochs in {run.record['seconds'] / 60:.1f} min: validation {validated:.2%}, "
        f"test {scores['accuracy']:.2%} [{scores['accuracy_low']:.2%}, {scores['accuracy_high']:.2%}] by a single view"
    )


if __name__ == "__main__":
    with exit_cleanly("Stopped. The same command goes on from the last finished epoch."):
        main()
