from shoal.language.tables import table_text

HEADS = ["ID", "NAME", "IMAGE", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR", "PORTS"]
TASK = [
    "x7k2m9p4q1w8", "shop_web.1", "registry.example.com:5000/shop/web:2026.11", "worker-3", "Running",
    "Running 3 minutes ago", '"starting container failed: …"', "*:8080->80/tcp",
]  # fmt: skip


def test_what_fits_is_left_alone():
    assert table_text([HEADS, TASK], 300) == table_text([HEADS, TASK])
    assert table_text([["NAME"], ["web"]], 8) == "NAME\nweb\n"


def test_gaps_give_before_anything_is_cut():
    rows = [["ID", "NAME", "MODE"], ["x7k2m9p4q1w8", "web", "replicated"]]
    assert table_text(rows, 34).splitlines()[1] == "x7k2m9p4q1w8  web   replicated"


def test_long_texts_give_first_and_the_widest_most():
    _, task = table_text([HEADS, TASK], 150).splitlines()
    assert len(task) <= 150
    assert task == (
        "x7k2m9p4q1w8  shop_web.1  registry.example.com:5000/sh…  worker-3  Running        Running 3 minutes ago  "
        '"starting container failed: …  *:8080->80/tcp'
    )


def test_ids_and_names_give_when_nothing_else_can():
    rows = [["ID", "NAME", "MODE"], ["x7k2m9p4q1w8", "a-name-of-a-service-that-is-long", "replicated"]]
    assert table_text(rows, 53).splitlines()[1] == "x7k2m9p4q1w8  a-name-of-a-service-that-is-long  repl…"
    assert table_text(rows, 40).splitlines()[1] == "x7k2m9p4q1w8  a-name-of-a-service…  rep…"


def test_a_head_that_is_wider_than_its_column_gives_before_ids_do():
    heads, task = table_text([HEADS, TASK], 76).splitlines()
    assert max(len(heads), len(task)) <= 76
    assert "DESIRED…" in heads
    assert task.startswith("x7k2m9p4q1w8  shop_web.1  ")


def test_colours_take_no_room_and_leave_heads_alone():
    rows = [["NAME", "STATE", "MODE"], ["web", "Running", "global"], ["longer-than-ten", "Failed", "global"]]

    def paint(column, cell):
        return f"<{cell}>" if column == 1 else cell

    plain, painted = table_text(rows).splitlines(), table_text(rows, None, paint).splitlines()
    assert painted[0] == plain[0]
    assert painted[1] == plain[1].replace("Running", "<Running>")
