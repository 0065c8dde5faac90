"""The way of a request, from what the API says."""

from shoal.cli.trace import lines, trace


def node(identity, address, state="ready"):
    return {"ID": identity, "Description": {"Hostname": f"h-{identity}"}, "Status": {"State": state, "Addr": address}}


def task(identity, slot, node_id, state="running", desired="running", message="", attachments=()):
    return {
        "ID": identity, "Slot": slot, "NodeID": node_id, "DesiredState": desired,
        "Status": {"State": state, "Message": message}, "NetworksAttachments": list(attachments),
    }  # fmt: skip


def on(network_id, address, ingress=False):
    return {"Network": {"ID": network_id, "Spec": {"Ingress": ingress}}, "Addresses": [address]}


def service(*ports, labels=None, virtual=()):
    return {"Spec": {"Name": "web", "Labels": labels or {}},
            "Endpoint": {"Ports": list(ports), "VirtualIPs": list(virtual)}}  # fmt: skip


PORT = {"Protocol": "tcp", "PublishedPort": 8080, "TargetPort": 80, "PublishMode": "ingress"}
NODES = [node("n1", "10.0.0.1"), node("n2", "10.0.0.2", "down")]
NETWORKS = {
    "net": {"Name": "back", "Driver": "overlay", "Options": {"encrypted": ""}},
    "ing": {"Name": "ingress", "Driver": "overlay", "Ingress": True},
}
TASKS = [
    task("t1", 1, "n1", attachments=(on("ing", "10.255.0.5/16", True), on("net", "10.0.9.3/24"))),
    task("t2", 2, "n1", state="preparing", message="pulling"),
    task("t3", 3, "n2", attachments=(on("net", "10.0.9.4/24"),)),
    task("t4", 3, "n2", state="failed"),
    task("t5", 4, "n1", desired="shutdown"),
]


def test_ports_lead_from_every_node_to_the_tasks_that_serve():
    found = trace(service(PORT), TASKS, NODES, {})
    (port,) = found["Ports"]
    assert [(e["Node"], e["Answers"], e["Why"]) for e in port["Entries"]] == [
        ("h-n1", True, ""), ("h-n2", False, "the node is down")]  # fmt: skip
    assert [(b["Task"], b["Serving"], b["Why"]) for b in port["Backends"]] == [
        ("t1", True, ""), ("t2", False, "it is preparing: pulling"), ("t3", False, "its node is down"),
        ("t5", False, "it is told to stop")]  # fmt: skip
    assert port["Backends"][0]["Address"] == "10.255.0.5"


def test_entries_of_a_local_policy_and_of_nothing_that_serves():
    nodes = [node("n1", "10.0.0.1"), node("n3", "10.0.0.3")]
    local = trace(service(PORT, labels={"shoal.ingress.policy": "local"}), TASKS[:1], nodes, {})
    assert [e["Answers"] for e in local["Ports"][0]["Entries"]] == [True, False]
    assert {e["Why"] for e in trace(service(PORT), [], nodes, {})["Ports"][0]["Entries"]} == {"no task serves"}
    host = trace(service({**PORT, "PublishMode": "host"}), TASKS[:1], nodes, {})
    assert [e["Node"] for e in host["Ports"][0]["Entries"]] == ["h-n1"]


def test_networks_with_virtual_address_and_tasks():
    found = trace(service(virtual=[{"NetworkID": "net", "Addr": "10.0.9.2/24"}]), TASKS[:1], NODES, NETWORKS)
    (network,) = found["Networks"]
    assert (network["VirtualIP"], network["Tasks"][0]["Address"]) == ("10.0.9.2", "10.0.9.3")
    written = "\n".join(lines(found))
    assert "network back, encrypted: virtual address 10.0.9.2" in written
    assert "10.0.9.3 on h-n1 (10.0.0.1)  serves" in written
    assert "nothing leads to it" in "\n".join(lines(trace(service(), [], NODES, {})))
