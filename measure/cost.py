#!/usr/bin/env python3
"""What a packet costs: our rulesets, and layouts in the manner of others, against the same box without policy. Needs root.

    cargo build -p netpol-nft --example node -p netpol-iptables --example iptables_node
    python3 measure/cost.py INJECT_DIR target/debug/examples [ROUNDS]

INJECT_DIR holds `inject` and `inject.bpf.o`, which run a device's receive path for packets of given flows.

One network namespace per case: uplink, pods' device, routes, conntrack, and a chain at the end that drops what was forwarded
(new and denied packets) or not (established). Slices of 8192 packets of a case and of the floor in turn; printed is the median
of case / floor, and of the difference per packet.
"""
import os
import statistics
import subprocess
import sys
import tempfile

import layouts

INJECT, EXAMPLES = sys.argv[1], sys.argv[2]
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 40
SLICE = 8192
TAIL = """table inet tail { chain f { type filter hook forward priority 200; counter drop
}
}
"""
CONNTRACK = """table inet load { chain f { type filter hook forward priority 300; ct state invalid drop
}
}
"""
NEIGHBOUR = "02:00:00:00:00:99"


def sh(command, text=None):
    done = subprocess.run(command, shell=True, input=text, text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"{command}: {done.stderr[:500]}")
    return done.stdout


class Case:
    def __init__(self, name, pods, load=None, guarded=False, outward=True):
        self.name, self.pods, self.guarded, self.outward, self.netns = name, pods, guarded, outward, "cost-" + name
        subprocess.run(f"ip netns delete {self.netns}", shell=True, capture_output=True)
        sh(f"ip netns add {self.netns}")
        e = f"ip netns exec {self.netns} "
        sh(e + "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 "
           "net.ipv4.conf.default.rp_filter=0 net.netfilter.nf_conntrack_max=400000")
        for device, v4, v6 in (("up0", "10.255.0.1/24", "fd00:ff::1/64"), ("pod0", "10.254.0.1/24", "fd00:fe::1/64")):
            sh(e + f"ip link add {device} type veth peer name {device}x")
            sh(e + f"ip link set {device} up && " + e + f"ip link set {device}x up")
            sh(e + f"ip addr add {v4} dev {device} && " + e + f"ip -6 addr add {v6} dev {device} nodad")
        for via, device, nets in (("254", "pod0", ("10.1.0.0/16", "fd00:1::/32")), ("255", "up0", ("10.2.0.0/16", "fd00:2::/32"))):
            six = "fd00:f" + ("e" if via == "254" else "f") + "::2"
            sh(e + f"ip neigh replace 10.{via}.0.2 lladdr {NEIGHBOUR} dev {device} nud permanent")
            sh(e + f"ip neigh replace {six} lladdr {NEIGHBOUR} dev {device} nud permanent")
            sh(e + f"ip route add {nets[0]} via 10.{via}.0.2")
            sh(e + f"ip -6 route add {nets[1]} via {six}")
        self.mac = {d: sh(e + f"cat /sys/class/net/{d}/address").strip() for d in ("up0", "pod0")}
        sh(e + "nft -f -", CONNTRACK)
        if load:
            load(e)

    def tail(self, on):
        sh(f"ip netns exec {self.netns} nft -f -", TAIL if on else "delete table inet tail\n")


def nft(pods, guard, dispatch="address"):
    """Our rules in nftables."""
    return lambda e: sh(e + "nft -f -", sh(f"{EXAMPLES}/node {pods} {guard} pod0 {dispatch}"))


def iptables(pods, guard, flavor):
    """Our rules in iptables and ipset."""
    def load(e):
        with tempfile.TemporaryDirectory() as directory:
            sh(f"{EXAMPLES}/iptables_node {pods} {guard} pod0 {directory}")
            sh(f"{e} env IPTABLES=iptables-{flavor} IP6TABLES=ip6tables-{flavor} sh {directory}/load.sh")
    return load


def like_nft(layout):
    def load(e):
        for six in (False, True):
            sh(e + "nft -f -", layout(six))
    return load


def like_iptables(flavor):
    def load(e):
        for six in (False, True):
            sh(e + "ipset restore", layouts.kube_router_like_ipset(six))
            sh(e + f"ip{'6' if six else ''}tables-{flavor}-restore", layouts.kube_router_like_iptables(six))
    return load


inject = subprocess.Popen([INJECT + "/inject", INJECT + "/inject.bpf.o"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
assert inject.stdout.readline() == "ready\n"


def tell(line):
    inject.stdin.write(line + "\n")
    inject.stdin.flush()


def send(case, device, first, count, packets, how=""):
    tell(f"send /run/netns/{case.netns} {device} {case.mac[device]} {first} {count} {packets} {how}")
    return float(inject.stdout.readline())


# Flows: a remote pod that the last rule of its destination's class allows, to a local pod. 4 * class + 3 (mod 40) is the set;
# remote pod n is in the sets n, n + 10, n + 20 and n + 30 (mod 40).
def remote_for(pod, n):
    return ((4 * (pod % 10) + 3) % 10 + 10 * n) + 1


COUNT = 1024


def fill(first, pods, six, port, outward):
    for k in range(COUNT):
        pod = k % pods
        peer = remote_for(pod, k % 900)
        local, far = (f"fd00:1::{pod + 1:x}", f"fd00:2::{peer:x}") if six else (
            f"10.1.{(pod + 1) >> 8}.{(pod + 1) & 255}", f"10.2.{peer >> 8}.{peer & 255}")
        a, b = (local, far) if outward else (far, local)
        tell(f"flow {first + k} {a} {2000 + k % 60000} {b} {port}")


print("a dummy to hold the programs", file=sys.stderr)
sh("ip netns add cost-hold 2>/dev/null; ip netns exec cost-hold ip link add h0 type veth peer name h1; "
   "ip netns exec cost-hold ip link set h0 up; ip netns exec cost-hold ip link set h1 up")
tell("hold /run/netns/cost-hold h0 h1")

cases = [Case("floor", 110), Case("nft", 110, nft(110, "off")), Case("nft-guard-prerouting", 110, nft(110, "prerouting"), guarded=True),
         Case("nft-guard-devices", 110, nft(110, "ingress"), guarded=True),
         # One device is there, so one pod is sent to.
         Case("nft-by-device", 1, nft(110, "off", "interface"), guarded=True),
         Case("nft-admin-tiers", 110, nft(110, "off+tiers")),
         Case("nft-10-pods", 10, nft(10, "off")), Case("nft-1000-pods", 1000, nft(1000, "off")),
         Case("calico-like-nft", 110, like_nft(layouts.calico_like), outward=False),
         Case("kube-router-like-nft", 110, like_nft(layouts.kube_router_like), outward=False)]
if os.path.exists(EXAMPLES + "/iptables_node"):
    cases += [Case("iptables-legacy", 110, iptables(110, "off", "legacy")),
              Case("iptables-legacy-guard", 110, iptables(110, "prerouting", "legacy"), guarded=True),
              Case("iptables-legacy-tiers", 110, iptables(110, "off+tiers", "legacy")),
              Case("iptables-nft", 110, iptables(110, "off", "nft")),
              Case("iptables-10-pods", 10, iptables(10, "off", "legacy")),
              Case("iptables-1000-pods", 1000, iptables(1000, "off", "legacy")),
              Case("kube-router-like-legacy", 110, like_iptables("legacy"), outward=False)]
floor = cases[0]
base = {}
number = 0
for pods in (1, 10, 110, 1000):
    for six in (False, True):
        for port in (80, 99):
            for outward in (False, True):
                base[pods, six, port, outward] = number
                fill(number, pods, six, port, outward)
                number += COUNT


def measure(title, device, port, outward, how, prime=False):
    some = [case for case in cases if case.outward or not outward]
    for six in (False, True):
        ratios = {case.name: [] for case in cases}
        costs = {case.name: [] for case in cases}
        for case in cases:
            case.tail(False)
            # Behind a guard, a device sends for one pod only, and answers for one.
            answers = prime and case.guarded
            case.first = base[1 if outward or answers else case.pods, six, port, outward]
            if prime:
                other = "up0" if device == "pod0" else "pod0"
                send(case, device, case.first, COUNT, 2 * COUNT, "turn")
                send(case, other, case.first, COUNT, 2 * COUNT, "turn back")
            if not prime:
                case.tail(True)
        if prime:
            for pods in (1, 10, 110, 1000):
                first = base[1 if outward else pods, six, port, outward]
                send(floor, device, first, COUNT, 2 * COUNT, "turn")
                send(floor, "up0" if device == "pod0" else "pod0", first, COUNT, 2 * COUNT, "turn back")
            for case in cases:
                case.tail(True)
        for _ in range(ROUNDS):
            for case in some[1:]:
                ground = send(floor, device, case.first, COUNT, SLICE, how)
                cost = send(case, device, case.first, COUNT, SLICE, how)
                ratios[case.name].append(cost / ground)
                costs[case.name].append((cost - ground) / SLICE)
        for case in some[1:]:
            print(f"{title:20} {'v6' if six else 'v4'} {case.name:24} {statistics.median(ratios[case.name]):.3f}"
                  f"  {statistics.median(costs[case.name]):+.0f} ns", flush=True)
        for case in cases:
            case.tail(False) if sh(f"ip netns exec {case.netns} nft list tables").find("inet tail") >= 0 else None
            sh(f"ip netns exec {case.netns} nft -f -", TAIL)


for case in cases:
    case.tail(True)
measure("new, to pods", "up0", 80, False, "sports=60000")
measure("denied, to pods", "up0", 99, False, "sports=60000")
measure("new, from a pod", "pod0", 80, True, "sports=60000")
measure("established, to pods", "up0", 80, False, "", prime=True)
measure("established, from a pod", "pod0", 80, True, "", prime=True)
for case in cases:
    sh(f"ip netns delete {case.netns}")
sh("ip netns delete cost-hold")
