"""The image manifests: those we ship are sound, and a wrong one is refused by file and field."""

import subprocess
from pathlib import Path

import pytest

from lab.errors import ConfigError
from lab.image_manifest import load_manifests

IMAGES = Path(__file__).parents[2] / "images"
GOOD = """
kind = "guest"
suite = "bookworm"
arch = "amd64"
packages = ["busybox-static"]
overlay = "guest-tiny"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "overlays/guest-tiny").mkdir(parents=True)
    return tmp_path


def test_the_shipped_manifests_are_sound() -> None:
    manifests = load_manifests(IMAGES)
    assert {"dom0-xen-4.17-amd64", "dom0-xen-4.20-amd64", "guest-tiny-amd64"} <= set(manifests)
    for name, manifest in manifests.items():
        assert manifest.name == name
        if manifest.kind == "dom0":
            assert f"xen-hypervisor-{manifest.xen}-{manifest.arch}" in manifest.packages
            assert manifest.modules.index("xenfs") == 0


@pytest.mark.parametrize(
    ("kind", "arch", "more", "good"),
    [
        ("stubdom", "amd64", 'xen = "4.17"', True),
        ("stubdom", "amd64", "", False),
        ("guest", "amd64", "firmware = true", True),
        ("guest", "arm64", "firmware = true", False),
        ("dom0", "amd64", 'xen = "4.17"\nfirmware = true', False),
    ],
)
def test_a_kind_of_image_has_what_belongs_to_it(folder: Path, kind: str, arch: str, more: str, *, good: bool) -> None:
    text = GOOD.replace('"guest"', f'"{kind}"').replace('"amd64"', f'"{arch}"') + more
    (folder / "one.toml").write_text(text)
    if good:
        assert load_manifests(folder)["one"].kind == kind
    else:
        with pytest.raises(ConfigError, match="manifest"):
            load_manifests(folder)


SCRIPTS = [
    path
    for path in sorted(IMAGES.glob("overlays/**/*"))
    if path.is_file() and not path.is_symlink() and path.read_bytes().startswith(b"#!")
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(IMAGES)))
def test_overlay_scripts_are_executable_and_parse(script: Path) -> None:
    assert script.stat().st_mode & 0o111 == 0o111
    subprocess.run(["sh", "-n", script], check=True)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ('colour = "red"', "colour"),
        ('xen = "4.17"', "manifest"),
        ('include = ["bin/sh"]', r"include\.0"),
        ('include = ["/bin/../etc"]', r"include\.0"),
        ('modules = ["a b"]', r"modules\.0"),
        ('name = "other"', "name"),
        ('[[sources]]\nfile = "../x.c"\ntarget = "/x"', r"sources\.0\.file"),
        ('[[sources]]\nfile = "none.c"\ntarget = "/x"', "sources"),
        ('overlays = ["none"]', "overlay"),
        ('[[edits]]\npath = "etc/x"\ndrop = ["a"]', r"edits\.0\.path"),
        ('[[edits]]\npath = "/etc/x"\ndrop = []', r"edits\.0\.drop"),
        ('[[edits]]\npath = "/etc/x"\ndrop = [""]', r"edits\.0\.drop\.0"),
    ],
)
def test_a_wrong_addition_is_refused_by_file_and_field(folder: Path, change: str, field: str) -> None:
    (folder / "bad.toml").write_text(f"{GOOD}{change}\n")
    with pytest.raises(ConfigError, match=rf"bad\.toml: {field}: "):
        load_manifests(folder)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("amd64", "vax", "arch"),
        ("bookworm", "book worm", "suite"),
        ("busybox-static", "-oDir::Etc=x", r"packages\.0"),
        ('["busybox-static"]', "[]", "packages"),
        ('kind = "guest"', 'kind = "dom0"', "manifest"),
        ('"guest-tiny"', '"../x"', "overlay"),
        ('"guest-tiny"', '"none"', "overlay"),
    ],
)
def test_a_wrong_value_is_refused_by_file_and_field(folder: Path, old: str, new: str, field: str) -> None:
    (folder / "bad.toml").write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError, match=rf"bad\.toml: {field}: "):
        load_manifests(folder)


def test_a_manifest_extends_another_lists_grow_and_the_rest_is_replaced(folder: Path) -> None:
    (folder / "_base.toml").write_text(GOOD.replace("busybox-static", "xen-{xen}-{arch}").replace('guest"', 'dom0"', 1))
    (folder / "one.toml").write_text('extends = "_base"\nxen = "4.17"\nsuite = "trixie"\npackages = ["bash"]\n')
    (folder / "two.toml").write_text('extends = "one"\nxen = "4.20"\n')
    manifests = load_manifests(folder)
    assert set(manifests) == {"one", "two"}  # a file that begins with _ is only there to be extended
    assert manifests["one"].packages == ("xen-4.17-amd64", "bash")
    assert manifests["two"].packages == ("xen-4.20-amd64", "bash")
    assert (manifests["one"].suite, manifests["one"].kind) == ("trixie", "dom0")


@pytest.mark.parametrize(
    ("extends", "said"),
    [
        ('"bad"', "extends itself"),
        ('"none"', r"none\.toml cannot be read"),
        ('"../x"', "not the name"),
        ("3", "not the name"),
    ],
)
def test_a_manifest_that_extends_nonsense_is_refused(folder: Path, extends: str, said: str) -> None:
    (folder / "bad.toml").write_text(f"extends = {extends}\n")
    with pytest.raises(ConfigError, match=said):
        load_manifests(folder)


def test_broken_toml_names_the_file(folder: Path) -> None:
    (folder / "bad.toml").write_text("kind = ")
    with pytest.raises(ConfigError, match=r"bad\.toml cannot be read"):
        load_manifests(folder)


def test_a_missing_folder_is_said() -> None:
    with pytest.raises(ConfigError, match="not a folder"):
        load_manifests(Path("/nowhere"))
