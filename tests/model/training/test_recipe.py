from pathlib import Path

import pytest

from model.errors import RecipeInvalid
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
    assert config.n_items == 1_000
    assert config.kind == recipe.network["kind"]
    assert name.startswith(config.kind)


def test_there_is_a_recipe_for_every_kind_and_a_default() -> None:
    assert {*PAPER, "holomambarec", recipes.DEFAULT} <= set(recipes.names())


def test_the_papers_recipes_carry_its_numbers() -> None:
    for name in PAPER:
        recipe, config = recipes.load(name), recipes.load(name).config(1_000)
        training = recipe.training
        assert (training.lr, training.weight_decay, training.batch, training.patience) == (1e-3, 0.1, 8, 10)
        assert (config.d, config.segment_length, config.segments) == (64, 200, 5)
        assert (config.layers, config.heads) == ((4, 4) if config.backbone == "sasrec" else (16, 8))
        assert (config.slots, config.con_weight) == (4, 1.0)


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
        assert (config.d, config.window, config.dropout) == (50, 200, 0.2)
        assert config.rel_bias == ("pos_time" if "hstu" in name else "none")


def test_a_recipe_can_be_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    recipe = recipes.load(str(path))
    assert (recipe.name, recipe.config(5).segment_length, recipe.training) == ("mine", 10, TrainingOptions(lr=0.01))
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
        ("[network]\nkind = 'rec2pm'\nsegment_length = 5", r"kind is 'rec2pm'; known are full, .*\(did you mean rec2pm-.\?\)"),
        ("[network]\nsegment_length = 5.5", r"\[network\]: Expected `int`, got `float` - at `\$.segment_length`"),
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
    assert (changed.config(5).d, changed.config(5).segment_length) == (32, 10)
    assert changed.training == TrainingOptions(
        lr=3e-4, split="last-out", betas=(0.8, 0.9), negative_mode="position", max_seconds=60.0
    )
    assert recipe.training == TrainingOptions(lr=0.01)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lr", "'lr' is not KEY=VALUE"),
        ("layer=3", r"unknown field 'layer' \(did you mean layers\?\); there are \[network\]"),
        ("network.lr=3", "unknown field 'network.lr'"),
        ("lr=fast", "Expected `float`, got `str`"),
        ("layers=0", "layers is 0, must be at least 1"),
        ("kind=rec3pm", "kind is 'rec3pm'"),
    ],
)
def test_what_is_wrong_with_a_setting_is_said(setting: str, message: str) -> None:
    with pytest.raises(RecipeInvalid, match=message):
        recipes.changed(recipes.parse(MINIMAL, "mine", "mine.toml"), [setting])


def test_a_manifest_gives_its_recipe_back() -> None:
    recipe = recipes.changed(recipes.load("rec2pm-o-sasrec-small"), ["d=32", "max_seconds=5"])
    again = recipes.of_manifest(recipe.resolved(77), "rec2pm@3")
    assert (again.name, again.description, again.training) == (recipe.name, recipe.description, recipe.training)
    assert again.config(77) == recipe.config(77)
    with pytest.raises(RecipeInvalid, match="rec2pm@3: its manifest names no recipe"):
        recipes.of_manifest({}, "rec2pm@3")
