from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_room_stands_in_the_architecture_of_the_readme():
    rooms = {
        f"`{path.name}/`" if path.is_dir() else f"`{path.name}`"
        for path in (ROOT / "provisiond").iterdir()
        if not path.name.startswith("_") and (path.is_dir() or path.suffix == ".py")
    }
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    architecture = readme.partition("## How it is built")[2].partition("\n## ")[0]

    assert [room for room in sorted(rooms) if room not in architecture] == []
