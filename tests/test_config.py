"""Hyper-parameters: profiles, changes, and what is refused."""

import pytest

from helpers import config, runs


def test_profiles_differ_in_their_length_only():
    for network in config.NETWORKS:
        full, quick = config.train_config(network, "full"), config.train_config(network, "quick")
        assert quick.epochs < full.epochs and quick.warmup_epochs <= quick.epochs / 4
        assert config.replace(quick, epochs=full.epochs, warmup_epochs=full.warmup_epochs) == full


def test_changes_reach_their_field_and_the_warm_up_fits():
    cfg = config.train_config("ImprovedNet", "full", epochs=2, rotation=15.0)
    assert (cfg.epochs, cfg.rotation, cfg.warmup_epochs) == (2, 15.0, 0.5)


@pytest.mark.parametrize(
    ("network", "profile", "changes", "message"),
    [
        ("VGG", "full", {}, "unknown network 'VGG': choose one of BaselineNet, ImprovedNet, FastNet."),
        ("FastNetSmall", "full", {}, "unknown network 'FastNetSmall': choose one of"),
        ("BaselineNet", "long", {}, "unknown profile 'long': choose one of smoke, quick, full."),
        ("BaselineNet", "full", {"epoch": 3}, "unknown setting 'epoch': choose from epochs, batch_size"),
        ("BaselineNet", "full", {"epochs": -1}, "epochs must lie between 0 and a million, not -1."),
        ("BaselineNet", "full", {"epochs": 0}, "epochs must be more than 0."),
        ("BaselineNet", "full", {"epochs": 2.5}, "epochs must be a whole number, not 2.5."),
        ("BaselineNet", "full", {"epochs": True}, "epochs must be of type int, not True."),
        ("BaselineNet", "full", {"peak_lr": "0.1"}, "peak_lr must be of type float, not '0.1'."),
        ("BaselineNet", "full", {"weight_decay": float("nan")}, "weight_decay must lie between 0 and a million"),
        ("BaselineNet", "full", {"flip": 1.5}, "flip must lie between 0 and 1, not 1.5."),
        ("ImprovedNet", "full", {"bounded": 0.7}, "the bounded loss knows no label smoothing: set bounded or"),
        ("BaselineNet", "full", {"optimizer": "lion"}, "optimizer must be one of sgd, adamw, muon, not 'lion'."),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(network, profile, changes, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")) as caught:
        config.train_config(network, profile, **changes)
    assert "\n" not in str(caught.value)


def test_a_whole_number_and_its_float_are_one_setting_with_one_identity():
    whole, floating = (config.train_config("ImprovedNet", "full", rotation=value) for value in (5, 5.0))
    assert whole == floating and type(whole.rotation) is float
    names = {runs.identity("ImprovedNet", cfg, 0, {}) for cfg in (whole, floating)}
    assert len(names) == 1


def test_a_record_gives_the_settings_again():
    for cfg in (config.BASELINE, config.IMPROVED, config.train_config("BaselineNet", "smoke")):
        assert config.from_record(config.to_record(cfg)) == cfg
