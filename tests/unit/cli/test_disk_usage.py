from shoal.cli.commands.disk_usage import Usage, usages


def test_what_is_used_is_not_reclaimable():
    found = {
        "LayersSize": 1000,
        "Images": [
            {"Containers": 1, "Size": 700, "SharedSize": 300},
            {"Containers": 0, "Size": 600, "SharedSize": 300},
        ],
        "Containers": [{"State": "running", "SizeRw": 5}, {"State": "paused"}, {"State": "exited", "SizeRw": 7}],
        "Volumes": [{"UsageData": {"RefCount": 0, "Size": 11}}, {"UsageData": {"RefCount": 2, "Size": -1}}],
    }
    assert usages(found) == [
        Usage("Images", 2, 1, 1000, 600),
        Usage("Containers", 3, 2, 12, 7),
        Usage("Local Volumes", 2, 1, 11, 11),
        Usage("Build Cache", 0, 0, 0, 0),
    ]


def test_a_node_that_holds_nothing():
    assert {(usage.total, usage.size_bytes) for usage in usages({"LayersSize": 0, "Images": None})} == {(0, 0)}
