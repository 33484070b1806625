#!/usr/bin/env python3
"""What a packet costs with iptables: our rulesets against the same box without policy. Root; uses `inject` and `inject.bpf.o`.

    cargo build --release -p netpol-iptables --example iptables_node
    python3 cost.py INJECT_DIR target/release/examples/iptables_node [ROUNDS]

One network namespace per case: uplink, pods' device, routes, conntrack, and a chain at the end that drops what was forwarded
(new and denied packets) or not (established). Slices of 8192 packets of a case and of the floor in turn; the table has the
median of case / floor. Beside ours: the same policies in the layout of kube-router (a linear list of pods, a chain for each
pod, marks), on iptables-legacy.
"""
import statistics
import subprocess
import sys
import tempfile

INJECT, NODE = sys.argv[1], sys.argv[2]
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 25
SLICE, COUNT = 8192, 1024
# Slow layouts change the tail, too: it is nft, at another hook priority, in all cases.
TAIL = "table inet tail { chain f { type filter hook forward priority 200; counter drop\n}\n}\n"
CONNTRACK = "table inet load { chain f { type filter hook forward priority 300; ct state invalid drop\n}\n}\n"
MAC = "02:00:00:00:00:99"
ROUTES = {"pod0": ("254", "fe", "10.1.0.0/16", "fd00:1::/32"), "up0": ("255", "ff", "10.2.0.0/16", "fd00:2::/32")}


def sh(command, text=None):
    done = subprocess.run(command, shell=True, input=text, text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"{command[:200]}: {done.stderr[:500]}")
    return done.stdout


def local(six, pod):
    return f"fd00:1::{pod + 1:x}" if six else f"10.1.{(pod + 1) >> 8}.{(pod + 1) & 255}"


def far(six, pod):
    return f"fd00:2::{pod:x}" if six else f"10.2.{pod >> 8}.{pod & 255}"


def ours(flavor, guard):
    def load(e, pods):
        with tempfile.TemporaryDirectory() as directory:
            sh(f"{NODE} {pods} {guard} pod0 {directory}")
            sh(f"{e} env IPTABLES=iptables-{flavor} IP6TABLES=ip6tables-{flavor} sh {directory}/load.sh")
    return load


def like_kube_router(e, pods):
    """The same policies: sets shared, for each pod a chain that tests state, jumps to each policy and looks at a mark."""
    for six in (False, True):
        tool, family, full = ("ip6tables", "inet6", 128) if six else ("iptables", "inet", 32)
        sets = [f"create k{six:d}-{k} hash:ip family {family} maxelem 65536" for k in range(40)]
        sets += [f"add k{six:d}-{(n + 10 * k) % 40} {far(six, n + 1)}" for n in range(10000 - pods) for k in range(4)]
        sh(f"{e} ipset restore", "\n".join(sets) + "\n")
        chains, rules = ["KR"], []
        for way, side, peer in (("in", "-d", "src"), ("out", "-s", "dst")):
            for cls in range(10):
                for policy in range(2):
                    name = f"P-{way}-{cls}-{policy}"
                    chains.append(name)
                    for rule in range(2):
                        k = (4 * cls + 2 * policy + rule) % 40
                        match = "udp --dport 80" if k % 4 == 3 else ("tcp --dport 80", "udp --dport 81", "udp --dport 82")[(2 * policy + rule) % 3]
                        match = f"-A {name} -p {match} -m set --match-set k{six:d}-{k} {peer} -m comment --comment rule"
                        rules += [f"{match} -j MARK --set-xmark 0x10000/0x10000", f"{match} -m mark --mark 0x10000/0x10000 -j RETURN"]
            for pod in range(pods):
                name, address = f"F-{way}-{pod}", f"{local(six, pod)}/{full}"
                chains.append(name)
                rules.append(f"-A KR {side} {address} -m comment --comment pod -j {name}")
                rules.append(f"-A {name} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
                rules.append(f"-A {name} -m conntrack --ctstate INVALID -j DROP")
                rules += [f"-A {name} {side} {address} -j P-{way}-{pod % 10}-{policy}" for policy in range(2)]
                rules.append(f"-A {name} -m mark ! --mark 0x10000/0x10000 -j DROP")
                rules.append(f"-A {name} -j MARK --set-xmark 0x0/0x10000")
                rules.append(f"-A {name} -j MARK --set-xmark 0x20000/0x20000")
        text = ["*filter"] + [f":{name} - [0:0]" for name in chains] + rules + ["-A FORWARD -j KR", "COMMIT"]
        sh(f"{e} {tool}-legacy-restore", "\n".join(text) + "\n")


class Case:
    def __init__(self, name, pods=110, load=None, guarded=False):
        self.name, self.pods, self.guarded, self.netns = name, pods, guarded, "costipt-" + name
        subprocess.run(f"ip netns delete {self.netns}", shell=True, capture_output=True)
        sh(f"ip netns add {self.netns}")
        e = f"ip netns exec {self.netns} "
        sh(e + "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 "
           "net.ipv4.conf.default.rp_filter=0 net.netfilter.nf_conntrack_max=400000")
        for device, (via, via6, net, net6) in ROUTES.items():
            sh(e + f"ip link add {device} type veth peer name {device}x; " + e + f"ip link set {device} up; "
               + e + f"ip link set {device}x up; " + e + f"ip addr add 10.{via}.0.1/24 dev {device}; "
               + e + f"ip -6 addr add fd00:{via6}::1/64 dev {device} nodad")
            for gateway, route in ((f"10.{via}.0.2", net), (f"fd00:{via6}::2", net6)):
                sh(e + f"ip neigh replace {gateway} lladdr {MAC} dev {device} nud permanent")
                sh(e + f"ip route add {route} via {gateway}")
        self.mac = {d: sh(e + f"cat /sys/class/net/{d}/address").strip() for d in ROUTES}
        sh(e + "nft -f -", CONNTRACK)
        if load:
            load(e, pods)
        self.tailed = False

    def tail(self, on):
        if on != self.tailed:
            sh(f"ip netns exec {self.netns} nft -f -", TAIL if on else "delete table inet tail\n")
        self.tailed = on


inject = subprocess.Popen([INJECT + "/inject", INJECT + "/inject.bpf.o"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
assert inject.stdout.readline() == "ready\n"


def tell(line):
    inject.stdin.write(line + "\n")
    inject.stdin.flush()


def send(case, device, first, packets, how=""):
    tell(f"send /run/netns/{case.netns} {device} {case.mac[device]} {first} {COUNT} {packets} {how}")
    return float(inject.stdout.readline())


sh("ip netns add costipt-hold 2>/dev/null; ip netns exec costipt-hold ip link add h0 type veth peer name h1; "
   "ip netns exec costipt-hold ip link set h0 up; ip netns exec costipt-hold ip link set h1 up")
tell("hold /run/netns/costipt-hold h0 h1")
cases = [
    Case("floor"),
    Case("legacy", 110, ours("legacy", "off")),
    Case("legacy-guard", 110, ours("legacy", "prerouting"), True),
    Case("nft", 110, ours("nft", "off")),
    Case("nft-guard", 110, ours("nft", "prerouting"), True),
    Case("kube-router-like", 110, like_kube_router),
    Case("legacy-10", 10, ours("legacy", "off")),
    Case("legacy-1000", 1000, ours("legacy", "off")),
]
floor = cases[0]
# Flows: a remote pod that the last rule of its destination's class allows (UDP 80) or nobody does (99), and a local pod.
base, number = {}, 0
for pods in (1, 10, 110, 1000):
    for six in (False, True):
        for port in (80, 99):
            for outward in (False, True):
                base[pods, six, port, outward] = number
                for k in range(COUNT):
                    pod = k % pods
                    peer = (4 * (pod % 10) + 3) % 10 + 10 * (k % 900) + 1
                    ends = (local(six, pod), far(six, peer)) if outward else (far(six, peer), local(six, pod))
                    tell(f"flow {number + k} {ends[0]} {2000 + k % 60000} {ends[1]} {port}")
                number += COUNT


def measure(title, device, port, outward, how="", prime=False):
    other = "up0" if device == "pod0" else "pod0"
    for six in (False, True):
        for case in cases:
            case.tail(False)
            # Behind a guard, a device sends for one pod only, and answers for one.
            one = outward or prime and case.guarded
            case.first = base[1 if one else case.pods, six, port, outward]
        for case in cases[1:] if prime else []:
            for at in (floor, case):
                send(at, device, case.first, 2 * COUNT, "turn")
                send(at, other, case.first, 2 * COUNT, "turn back")
        for case in cases:
            case.tail(True)
        ratios = {case.name: [] for case in cases}
        costs = {case.name: [] for case in cases}
        for _ in range(ROUNDS):
            for case in cases[1:]:
                ground = send(floor, device, case.first, SLICE, how)
                cost = send(case, device, case.first, SLICE, how)
                ratios[case.name].append(cost / ground)
                costs[case.name].append((cost - ground) / SLICE)
        for case in cases[1:]:
            ratio, over = statistics.median(ratios[case.name]), statistics.median(costs[case.name])
            print(f"{title:24} {'v6' if six else 'v4'} {case.name:17} {ratio:.3f}  {over:+.0f} ns", flush=True)


measure("new, to pods", "up0", 80, False, "sports=60000")
measure("denied, to pods", "up0", 99, False, "sports=60000")
measure("new, from a pod", "pod0", 80, True, "sports=60000")
measure("established, to pods", "up0", 80, False, prime=True)
measure("established, from a pod", "pod0", 80, True, prime=True)
for case in cases:
    sh(f"ip netns delete {case.netns}")
sh("ip netns delete costipt-hold")
