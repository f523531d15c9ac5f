"""`vsehub push MODEL REPO`: a saved model becomes a Hub repository, in one commit."""

from pathlib import Path

from ..files.text import printable
from .flags import add_json, tell
from .parser import Parser


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "push",
        "Upload a saved model's folder to the Hub in one commit: readers see the old version or the new one.",
        "push runs/mine/hub org/name --tag v1",
    )
    parser.add_place("model", "folder of a saved model")
    parser.add_place("repo", "name or organisation/name")
    parser.add("--private", action="store_true", help="make a new repository private")
    parser.add("--tag", help="tag of this version, such as v1; an existing tag is never moved")
    parser.add("--message", help="commit message")
    parser.add("--dry_run", action="store_true", help="list what would be uploaded; nothing is sent")
    add_json(parser, "the commit's address")
    return parser


def main(argv: list[str]) -> int:
    """Push a folder; print the commit's address."""
    args = parser().parse_args(argv)
    from ..hub_cards.push import check_names, push, shipped_files

    if args.dry_run:
        check_names(args.repo, args.tag)
        sizes = {name: path.stat().st_size for name, path in shipped_files(Path(args.model))}
        lines = [f"{size:14,}  {printable(name)}" for name, size in sizes.items()]
        text = "\n".join([*lines, f"{sum(sizes.values()):14,}  bytes in {len(sizes)} files; nothing was sent"])
        tell(args, text, {"repo": args.repo, "files": sizes})
        return 0

    address = push(args.model, args.repo, args.private, args.tag, args.message)
    tell(args, address, {"repo": args.repo, "commit": address})
    return 0
