"""The benchmark works; how fast anything is, no test says."""

import pytest

from tests.bench import bench_tpm_fleet


@pytest.mark.swtpm
def test_the_table_has_a_row_for_every_case(capsys):
    bench_tpm_fleet.main(["--devices", "3", "--rounds", "1", "--concurrency", "3"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(bench_tpm_fleet.CASES)
