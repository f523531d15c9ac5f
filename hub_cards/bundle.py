"""Sources to a Hub repository: the files that a class needs, flat, with imports that the Hub's loader understands.

transformers loads remote code from one flat folder and finds further files by matching `from .name import` in the
text. Our sources lie in folders, so the files that are reachable from a class are copied side by side and each
first-party import is rewritten. A class that was itself loaded from a Hub repository re-saves its files natively.
"""

import ast
import functools
import importlib.util
from pathlib import Path

PACKAGE = __name__.split(".")[0]


def reachable_sources(module: str) -> dict[str, str]:
    """Collect the first-party modules that `module` needs: file stem -> source with flat imports.

    Raises:
        ValueError: an import that cannot be flattened, or two files of one name.
    """
    found: dict[str, tuple[str, str]] = {}
    queue = [module]
    while queue:
        name = queue.pop()
        path = Path(importlib.util.find_spec(name).origin)
        if path.name == "__init__.py":
            raise ValueError(f"{name}: shipped code must import files, not packages")
        if found.get(path.stem, (name,))[0] != name:
            raise ValueError(f"{name} and {found[path.stem][0]} share a file name; the flat folder holds one of them")
        if path.stem not in found:
            source, needs = _flatten(path.read_text(encoding="utf-8"), name)
            found[path.stem] = (name, source)
            queue += needs
    return {stem: source for stem, (_, source) in found.items()}


def _flatten(source: str, module: str) -> tuple[str, list[str]]:
    """Rewrite first-party imports of one file to `from .stem import`; also return the modules it imports."""
    lines, needs = source.splitlines(keepends=True), []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == PACKAGE for alias in node.names):
            raise ValueError(f"{module}:{node.lineno}: write `from .file import name` in shipped code")
        if not isinstance(node, ast.ImportFrom):
            continue
        target = importlib.util.resolve_name("." * node.level + (node.module or ""), module.rpartition(".")[0])
        if target.split(".")[0] != PACKAGE:
            continue
        if node.module is None:
            raise ValueError(f"{module}:{node.lineno}: `from . import x` is invisible to the Hub's loader")
        needs.append(target)
        line = lines[node.lineno - 1]
        head, keyword, names = line.partition(" import ")
        indent = head[: len(head) - len(head.lstrip())]
        lines[node.lineno - 1] = f"{indent}from .{target.rpartition('.')[2]}{keyword}{names}"
    return "".join(lines), needs


def write_sources(cls: type, folder: str | Path):
    """Write the flat sources of an installed class into `folder`."""
    for stem, source in reachable_sources(cls.__module__).items():
        (Path(folder) / f"{stem}.py").write_text(source, encoding="utf-8")


def auto_class_entry(cls: type) -> str:
    """Return the `auto_map` value of a class in a flat repository: `file.Class`."""
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def self_contained_model(cls: type) -> type:
    """Make `save_pretrained` (hence `push_to_hub`) of an installed model class write its code beside the weights."""
    original = cls.save_pretrained

    @functools.wraps(original)
    def save_pretrained(self, save_directory, is_main_process=True, push_to_hub=False, **kwargs):
        if type(self) is not cls:  # a remote copy or a user's subclass: its own rules apply
            return original(self, save_directory, is_main_process, push_to_hub=push_to_hub, **kwargs)
        if push_to_hub:  # the original would upload before the code is written
            repo_id = kwargs.pop("repo_id", None) or Path(save_directory).name
            hub_names = ("token", "private", "commit_message", "create_pr", "revision", "tags")
            hub_kwargs = {name: kwargs.pop(name) for name in hub_names if name in kwargs}
            self.save_pretrained(save_directory, is_main_process, **kwargs)
            return self.push_to_hub(repo_id, **hub_kwargs) if is_main_process else None
        entry = auto_class_entry(cls)
        self.config.auto_map = {
            "AutoConfig": auto_class_entry(cls.config_class),
            "AutoModel": entry,
            "AutoModelForZeroShotImageClassification": entry,
        }
        original(self, save_directory, is_main_process, **kwargs)
        if is_main_process:
            write_sources(cls, save_directory)

    cls.save_pretrained = save_pretrained
    return cls


def self_contained_processor(cls: type) -> type:
    """The same for a processor class; its `auto_map` lives in `processor_config.json` alone."""
    original = cls.save_pretrained

    @functools.wraps(original)
    def save_pretrained(self, save_directory, push_to_hub=False, **kwargs):
        if type(self) is not cls:
            return original(self, save_directory, push_to_hub=push_to_hub, **kwargs)
        if push_to_hub:
            repo_id = kwargs.pop("repo_id", None) or Path(save_directory).name
            self.save_pretrained(save_directory)
            return self.push_to_hub(repo_id, **kwargs)
        self.auto_map = {"AutoProcessor": auto_class_entry(cls)}
        saved = original(self, save_directory, **kwargs)
        write_sources(cls, save_directory)
        return saved

    cls.save_pretrained = save_pretrained
    return cls
