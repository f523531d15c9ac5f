"""Copy the source files that a class needs into its Hub repository, flat, as the Hub's loader expects.

transformers loads remote code from one flat folder and finds further files by matching `from .name import` in
the text. Our sources lie in folders, so the files that are reachable from a class are copied side by side and
each first-party import is rewritten. A class that was itself loaded from a Hub repository re-saves natively.
"""

import ast
import functools
import importlib.util
import re
from pathlib import Path

from huggingface_hub import HfApi
from torch import distributed as dist
from transformers import PreTrainedModel, ProcessorMixin

from ..files.whole import write_draft
from .companions import CUSTOM_PIPELINES, PIPELINE, write_companions

PACKAGE = __name__.split(".")[0]
FROM_IMPORT = re.compile(r"from\s+[\w.]+\s+import\b")

# From a local folder, transformers 5.0 copies only files that a file itself names, so imports of imports are missing.
# The loader searches the text: a line that never runs is enough.
INDIRECT = "\n\n# Needed by the files imported above; some loaders look no further than here.\nif False:\n"

# With two local folders of one name, transformers runs the code of the first for both, unless the sources that their
# configurations name differ: so the configuration also names the files of the model.
OWNERS = "\n\n# Files of the model of this configuration: named, but not imported.\nif False:\n"


def reachable_sources(module: str) -> dict[str, str]:
    """Collect the first-party modules that `module` needs: file stem -> source with flat imports.

    Raises:
        ValueError: an import that cannot be flattened, or two files of one name.
    """
    names, sources, needs = {}, {}, {}
    queue = [module]
    while queue:
        name = queue.pop()
        spec = importlib.util.find_spec(name)
        if spec is None or spec.submodule_search_locations is not None:
            raise ValueError(f"{name}: shipped code must import files, not packages")
        stem = name.rpartition(".")[2]
        if names.setdefault(stem, name) != name:
            raise ValueError(f"{name} and {names[stem]} share a file name; the flat folder holds one of them")
        if stem not in sources:
            sources[stem], modules = _flatten(Path(spec.origin).read_text(encoding="utf-8"), name)
            needs[stem] = {module.rpartition(".")[2] for module in modules}
            queue += modules
    return {stem: source + _mention_indirect(stem, needs) for stem, source in sources.items()}


@functools.lru_cache(maxsize=256)  # training saves the same sources again and again
def _flatten(source: str, module: str) -> tuple[str, tuple[str, ...]]:
    """Rewrite first-party imports of one file to `from .stem import`; also return the modules it imports."""
    lines = source.split("\n")  # splitlines() would also split at characters that are no end of line for the parser
    needs = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == PACKAGE for alias in node.names):
            raise ValueError(f"{module}:{node.lineno}: write `from .file import name` in shipped code")
        if not isinstance(node, ast.ImportFrom):
            continue
        relative = "." * node.level + (node.module or "")
        target = importlib.util.resolve_name(relative, module.rpartition(".")[0])
        if target.split(".")[0] != PACKAGE:
            continue
        if node.module is None:
            raise ValueError(f"{module}:{node.lineno}: `from . import x` is invisible to the Hub's loader")
        line = lines[node.lineno - 1]
        indent = line[: len(line) - len(line.lstrip())]
        statement = FROM_IMPORT.match(line, len(indent))
        if statement is None:
            raise ValueError(f"{module}:{node.lineno}: write `from <file> import` at the start of a line")
        needs.append(target)
        lines[node.lineno - 1] = f"{indent}from .{target.rpartition('.')[2]} import{line[statement.end() :]}"
    return "\n".join(lines), tuple(needs)


def _mention_indirect(stem: str, needs: dict[str, set[str]]) -> str:
    """Text that names the files which `stem` needs only through others; empty where there are none."""
    reached, queue = {stem}, [stem]
    while queue:
        new = needs[queue.pop()] - reached
        reached |= new
        queue += new
    indirect = sorted(reached - needs[stem] - {stem})
    return INDIRECT + "".join(f"    from .{other} import *\n" for other in indirect) if indirect else ""


def write_sources(cls: type, folder: str | Path, beside: str | None = None):
    """Write the flat sources of an installed class into `folder`.

    Args:
        cls: a model or processor class of vsehub.
        folder: where its files are written, flat; files of the same names are replaced.
        beside: a further module to write; the class's file names it, so that a later save writes it, too.

    Raises:
        ValueError: an import that cannot be flattened, see `reachable_sources`.
    """
    sources = reachable_sources(cls.__module__)
    if beside is not None:
        sources |= reachable_sources(beside)
        stem = cls.__module__.rpartition(".")[2]
        mention = "" if INDIRECT in sources[stem] else INDIRECT
        sources[stem] += f"{mention}    from .{beside.rpartition('.')[2]} import *\n"
    if hasattr(cls, "config_class"):
        config = cls.config_class.__module__.rpartition(".")[2]
        sources[config] += OWNERS + "".join(f"    from .{other} import *\n" for other in sorted({*sources} - {config}))
    for stem, source in sources.items():
        write_draft(Path(folder) / f"{stem}.py", source)


def auto_class_entry(cls: type) -> str:
    """Return the `auto_map` value of a class in a flat repository: `file.Class`."""
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def self_contained_model(cls: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """Make `save_pretrained`, hence `push_to_hub`, of an installed model write its code beside the weights.

    All other classes, also a user's subclass, save as in transformers.
    """
    original = cls.save_pretrained
    entry = auto_class_entry(cls)

    @functools.wraps(original)
    def save_pretrained(
        self, save_directory, is_main_process=True, state_dict=None, push_to_hub=False, *args, **kwargs
    ):
        if type(self) is not cls and type(self).__name__ != f"FSDP{cls.__name__}":  # FSDP2 replaces the class
            return original(self, save_directory, is_main_process, state_dict, push_to_hub, *args, **kwargs)
        here = is_main_process and not (dist.is_available() and dist.is_initialized() and dist.get_rank())
        before = _timestamps(self, save_directory) if here and push_to_hub else None
        old = _weights(save_directory) if here else {}
        self.config.auto_map = {
            "AutoConfig": auto_class_entry(cls.config_class),
            "AutoModel": entry,
            "AutoModelForZeroShotImageClassification": entry,
        }
        self.config.custom_pipelines = CUSTOM_PIPELINES
        original(self, save_directory, is_main_process, state_dict, False, *args, **kwargs)
        if here and not getattr(self, "_hf_peft_config_loaded", False):  # an adapter names its base model instead
            write_sources(cls, save_directory, PIPELINE)
            write_companions(save_directory)
        if here:
            _remove_stale_weights(save_directory, old)
        if here and push_to_hub:  # not by the original, which would upload before the code is written
            _upload(self, save_directory, before, **kwargs)

    cls.save_pretrained = save_pretrained
    return cls


def self_contained_processor(cls: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The same for a processor class; its `auto_map` is only in `processor_config.json`."""
    original = cls.save_pretrained

    @functools.wraps(original)
    def save_pretrained(self, save_directory, push_to_hub=False, **kwargs):
        if type(self) is not cls:
            return original(self, save_directory, push_to_hub=push_to_hub, **kwargs)
        before = _timestamps(self, save_directory) if push_to_hub else None
        self.auto_map = {"AutoProcessor": auto_class_entry(cls)}
        saved = original(self, save_directory, **kwargs)
        write_sources(cls, save_directory)
        if push_to_hub:
            _upload(self, save_directory, before, **kwargs)
        return saved

    cls.save_pretrained = save_pretrained
    return cls


def _weights(folder: str | Path) -> dict[Path, tuple[int, int]]:
    """What names the weights of a folder, one file or an index of shards, each with its inode and time."""
    files = (Path(folder) / name for name in ("model.safetensors", "model.safetensors.index.json"))
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files if file.is_file()}


def _remove_stale_weights(folder: str | Path, old: dict[Path, tuple[int, int]]):
    """Where one file was saved over shards, remove their index; where shards over one file, that file.

    transformers leaves both, and readers would load the one file, old or new.
    """
    now = _weights(folder)
    stale = [file for file in now if now[file] == old.get(file)]
    if len(now) == 2 and len(stale) == 1:  # an adapter writes neither
        stale[0].unlink()


def _timestamps(saved, folder: str | Path) -> dict[str, float]:
    """Time of the last change of each file of a folder; none where the folder does not exist."""
    return saved._get_files_timestamps(folder) if Path(folder).is_dir() else {}


def _upload(saved, folder, before, repo_id=None, *, token=None, private=None, **kwargs):
    """Commit what was written since `before`, as `save_pretrained(push_to_hub=True)` of transformers does."""
    names = ("commit_message", "commit_description", "create_pr", "revision")
    repo_id = repo_id or Path(folder).resolve().name
    repo_id = HfApi(token=token).create_repo(repo_id, private=private, exist_ok=True).repo_id
    commit = {name: kwargs[name] for name in names if name in kwargs}
    return saved._upload_modified_files(str(folder), repo_id, before, token=token, **commit)
