"""``scm-media encode`` writes the latents of a recipe's data, or trajectories of its teacher, before training."""

from __future__ import annotations

from collections.abc import Sequence

from scm_media import recipe
from scm_media.cli.arguments import parser
from scm_media.display import byte_size, printable
from scm_media.progress import Progress


def run(arguments: Sequence[str]) -> int:
    """Writes the missing latents or trajectories; returns 0."""
    commands = parser(
        "encode",
        "Writes the latents of a recipe's data to <run_dir>/latents, where train finds them; goes on where it stopped.",
        usage="scm-media encode RECIPE [KEY=VALUE ...]",
        epilog="""The autoencoder must have been trained (stage=autoencoder) in the same run_dir. A recipe that flips
or crops at random needs latents.variants=K. Delete <run_dir>/latents to train without.
--trajectories needs the teacher, and a recipe that describes them (trajectories.num); stage=trajectories of
scm-media train does the same on all devices. Processes of torchrun share the latents, and the trajectories.""",
    )
    commands.add_argument("--trajectories", action="store_true", help="solve the teacher's trajectories instead")
    commands.add_argument("recipe", metavar="RECIPE", help="a recipe's name or YAML file")
    commands.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. latents.dtype=float32")
    parsed = commands.parse_intermixed_args(arguments)
    config = recipe.compose(parsed.recipe, parsed.overrides)

    from scm_media.training import encoding

    if parsed.trajectories:
        found = encoding.solve_trajectories(config, Progress())
        print(
            f"{printable(found['folder'])}: {found['trajectories']} trajectories solved now, {found['seconds']:.0f} s"
        )
        return 0
    done = encoding.encode(config, Progress())
    size = sum(path.stat().st_size for path in done["folder"].rglob("*.safetensors"))
    num, variants, seconds = done["examples"], done["variants"], done["seconds"]
    rate = f", {num * variants / seconds:.0f} latents a second" if num else ""
    print(
        f"{printable(done['folder'])}: {num} examples encoded now, {variants} variants each{rate}; "
        f"{byte_size(size)} in all"
    )
    return 0
