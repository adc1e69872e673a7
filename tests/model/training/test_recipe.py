import hashlib
import json
from pathlib import Path

import pytest
import torch

from model.errors import RecipeInvalid
from model.networks import kinds
from model.networks.config import KINDS
from model.training import recipe as recipes
from model.training.recipe import TrainingOptions

PAPER = [
    f"{kind}-{backbone}"
    for kind in ("full", "trunc", "rec2pm-o", "rec2pm-a", "tok-serial-o", "tok-serial-a", "kv-mask-o", "kv-mask-a")
    for backbone in ("sasrec", "hstu")
]
MINIMAL = "[network]\nsegment_length = 10\n[training]\nlr = 0.01\n"


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_describes_itself_and_makes_a_network(name: str) -> None:
    recipe = recipes.load(name)
    config = recipe.config(n_items=1_000)
    assert recipe.description
    assert config.shape.n_items == 1_000
    assert config.kind == recipe.network["kind"]
    assert name.startswith(config.kind)


def test_there_is_a_recipe_for_every_kind_and_a_default() -> None:
    assert {*PAPER, "holomambarec", recipes.DEFAULT} <= set(recipes.names())


def test_the_papers_recipes_carry_its_numbers() -> None:
    for name in PAPER:
        training, config = recipes.load(name).training, recipes.load(name).config(1_000)
        table = config.table()
        assert (training.lr, training.weight_decay, training.batch, training.patience) == (1e-3, 0.1, 8, 10)
        assert (config.shape.d, config.shape.segment_length, config.shape.segments) == (64, 200, 5)
        assert (table["layers"], table["heads"]) == ((4, 4) if table["backbone"] == "sasrec" else (16, 8))
        assert (table.get("slots", 4), table.get("con_weight", 1.0)) == (4, 1.0)


def test_models_that_are_compared_train_alike() -> None:
    assert {recipes.load(name).training for name in (*PAPER, "holomambarec")} == {
        recipes.load("rec2pm-o-sasrec").training
    }


def test_the_parity_recipes_follow_the_published_protocol() -> None:
    for name in ("full-meta-ml1m", "full-hstu-ml1m", "full-hstu-large-ml1m"):
        training, config = recipes.load(name).training, recipes.load(name).config(1_000)
        assert (training.split, training.windows, training.negatives, training.negative_mode) == (
            "last-out",
            "newest",
            128,
            "position",
        )
        assert (training.batch, training.weight_decay, training.warm_up_steps, training.clip) == (
            128,
            0.0,
            0,
            float("inf"),
        )
        assert (config.shape.d, config.shape.window, config.shape.dropout) == (50, 200, 0.2)
        assert config.table()["rel_bias"] == ("pos_time" if "hstu" in name else "none")


def test_a_recipe_can_be_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    recipe = recipes.load(str(path))
    assert (recipe.name, recipe.config(5).shape.segment_length, recipe.training) == (
        "mine",
        10,
        TrainingOptions(lr=0.01),
    )
    with pytest.raises(RecipeInvalid, match=r"other\.toml: no such file"):
        recipes.load(str(tmp_path / "other.toml"))


def test_an_unknown_recipe_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(RecipeInvalid, match=r"no recipe 'rec2pm-o-sasrek' \(did you mean rec2pm-o-sasrec\?\).*--list"):
        recipes.load("rec2pm-o-sasrek")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = ", "not TOML"),
        ("netwrok = 1", r"unknown table or field 'netwrok' \(did you mean network\?\)"),
        ("network = 3", r"\[network\] is 3, expected a table"),
        ("[training]\nlearning_rate = 1\n[network]\nlayer = 3", r"\[network\] has no field 'layer' \(did you mean layers\?\); \[training\] has no field 'learning_rate'.*warm_up_steps"),
        ("[network]\nn_items = 3", "has no field 'n_items'"),
        ("[network]\nkind = 'rec2pm'\nsegment_length = 5", r"kind is 'rec2pm' \(did you mean rec2pm-.\?\)\. The kinds are full,"),
        ("[network]\nsegment_length = 5.5", r"\[network\]: Expected `int`, got `float` - at `\$.segment_length`"),
        ("[network]\nkind = 'full'\nsegment_length = 5\nslots = 4", r"\[network\]: slots is a field of rec2pm-o, .*kv-mask-a, not of full"),
        ("[network]\nd = 64", r"\[network\]: Object missing required field `segment_length`"),
        ("[network]\nsegment_length = 5\nd = 10\nheads = 4", r"d \(10\) must be a multiple of heads \(4\)"),
        ("[training]\nbatch = 0\nlr = -1.0\nuntil_share = 2", r"batch is 0, must be at least 1; lr is -1.0, must be positive; until_share is 2.0"),
        ("[training]\nsplit = 'random'", "Invalid enum value 'random'"),
        ("[training]\nbetas = [0.9]", "betas"),
        ("[training]\nbetas = [0.9, 1.5]", "both must be in"),
        ("[training]\nvalidation_share = 1.0", "validation_share is 1.0"),
        ("[training]\noov_share = 1.0", "oov_share is 1.0"),
        ("[training]\nseed = -1", "seed is -1, must not be negative"),
        ("[training]\nprecision = '16-mixed'", "Invalid enum value '16-mixed'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_recipe_is_said(text: str, message: str) -> None:
    with pytest.raises(RecipeInvalid, match=message):
        recipes.parse(text, "mine", "mine.toml")


def test_fields_are_set_by_name_or_by_table_and_name() -> None:
    recipe = recipes.parse(MINIMAL, "mine", "mine.toml")
    changed = recipes.changed(
        recipe,
        [
            "lr=3e-4",
            "network.d = 32",
            "training.split=last-out",
            "betas=[0.8, 0.9]",
            'negative_mode="position"',
            "max_seconds=60",
        ],
    )
    assert (changed.config(5).shape.d, changed.config(5).shape.segment_length) == (32, 10)
    assert changed.training == TrainingOptions(
        lr=3e-4, split="last-out", betas=(0.8, 0.9), negative_mode="position", max_seconds=60.0
    )
    assert recipe.training == TrainingOptions(lr=0.01)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lr", "'lr' is not KEY=VALUE"),
        ("layer=3", r"unknown field 'layer' \(did you mean layers\?\)\. The fields are \[network\]"),
        ("network.lr=3", "unknown field 'network.lr'"),
        ("lr=fast", "Expected `float`, got `str`"),
        ("layers=0", "layers is 0, must be at least 1"),
        ("state_size=8", "state_size is a field of holomambarec, not of rec2pm-o"),
        ("kind=rec3pm", "kind is 'rec3pm'"),
    ],
)
def test_what_is_wrong_with_a_setting_is_said(setting: str, message: str) -> None:
    with pytest.raises(RecipeInvalid, match=message):
        recipes.changed(recipes.parse(MINIMAL, "mine", "mine.toml"), [setting])


def test_a_manifest_gives_its_recipe_back() -> None:
    recipe = recipes.changed(recipes.load("rec2pm-o-sasrec-small"), ["d=32", "max_seconds=5"])
    again = recipes.of_manifest(recipe.resolved(recipe.config(77)), "rec2pm@3")
    assert (again.name, again.description, again.training) == (recipe.name, recipe.description, recipe.training)
    assert again.config(77) == recipe.config(77)
    with pytest.raises(RecipeInvalid, match="rec2pm@3: its manifest has no recipe"):
        recipes.of_manifest({}, "rec2pm@3")


def test_another_kind_leaves_out_the_fields_that_it_does_not_have() -> None:
    recipe = recipes.load("rec2pm-o-sasrec-small")
    changed = recipes.changed(recipe, ["kind=full", "rel_bias=pos", "backbone=hstu"])
    assert changed.network == {
        "kind": "full",
        "backbone": "hstu",
        "segment_length": 50,
        "segments": 4,
        "d": 64,
        "layers": 2,
        "heads": 4,
        "dropout": 0.2,
        "temperature": 0.05,
        "rel_bias": "pos",
    }
    assert recipes.changed(recipe, ["kind=rec2pm-a"]).network["con_weight"] == 1.0
    with pytest.raises(RecipeInvalid, match=r"slots is a field of .*, not of full"):
        recipes.changed(recipe, ["kind=full", "slots=2"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_manifest_with_the_fields_of_every_kind_gives_a_recipe(kind: str) -> None:
    """As earlier builds wrote it."""
    network = {
        "n_items": 6,
        "segment_length": 3,
        "kind": kind,
        "backbone": "sasrec",
        "segments": 2,
        "d": 4,
        "layers": 1,
        "heads": 1,
        "slots": 2,
        "dropout": 0.2,
        "temperature": 0.05,
        "overlap": 0,
        "con_weight": 1.0,
        "con_target_grad": False,
        "stage1_weight": 0.0,
        "rollout": 0.0,
        "write_from_memory": False,
        "curriculum_epochs": 2,
        "state_size": 16,
        "attributes": 0,
        "rel_bias": "none",
    }
    config = recipes.of_manifest({"network": network, "training": {}}, "rec2pm@1").config(6)
    assert config.kind == kind
    assert {**network, **config.table()} == network
    with pytest.raises(RecipeInvalid, match="has no field 'depth'"):
        recipes.of_manifest({"network": {**network, "depth": 1}, "training": {}}, "rec2pm@1")


GOLDEN = json.loads((Path(__file__).parent / "golden" / "recipes.json").read_text())


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_makes_the_network_that_it_always_made(name: str) -> None:
    """40 items, seed 7: the names and shapes of all parameters, the sum of their entries and of their squares."""
    config = recipes.load(name).config(40, 3 if name == "holomambarec" else 0)
    network = kinds.build(config)
    kinds.initialise(network, torch.Generator().manual_seed(7))
    made = {name: parameter.detach().double() for name, parameter in network.named_parameters()}
    shapes = json.dumps([[name, list(value.shape)] for name, value in sorted(made.items())])
    golden = GOLDEN[name]
    assert hashlib.sha256(shapes.encode()).hexdigest() == golden["shapes_sha256"]
    assert sum(float(value.sum()) for value in made.values()) == pytest.approx(golden["sum"], abs=1e-4)
    assert sum(float((value**2).sum()) for value in made.values()) == pytest.approx(golden["squares"], rel=1e-6)
