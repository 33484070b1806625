"""Rulesets in the manner of other systems, for the node that `cost.py` measures.

Written from what is public about how they lay rules out, and simplified: what is compared is the layout, not a product.
Only the direction to the pods is policed. 110 pods of ten classes; a class has two policies with two rules each, a set of
1,000 peers for each rule; a packet to UDP port 80 walks to the last rule of its class, as in the rulesets of netpol.
"""

PODS, CLASSES, REMOTES = 110, 10, 9890
# The ports of a class' four rules. Only the last one allows what is sent.
PORTS = (443, 8080, 9090, 80)


def local(number, six):
    number += 1
    return f"fd00:1::{number:x}" if six else f"10.1.{number >> 8}.{number & 255}"


def remote(number, six):
    number += 1
    return f"fd00:2::{number:x}" if six else f"10.2.{number >> 8}.{number & 255}"


def peers(pod_class, rule, six):
    """Remote pod n is in the sets n, n + 10, n + 20 and n + 30 modulo 40, as the example `node` has them."""
    which = (4 * pod_class + rule) % 10
    return [remote(number, six) for number in range(REMOTES) if number % 10 == which]


def nft_sets(six):
    key = "ipv6_addr" if six else "ipv4_addr"
    for pod_class in range(CLASSES):
        for rule in range(4):
            members = ", ".join(peers(pod_class, rule, six))
            yield f"set s{pod_class}_{rule} {{ type {key}; elements = {{ {members} }}\n}}"


def table(six, lines):
    return f"table ip{'6' if six else ''} like {{\n" + "\n".join(lines) + "\n}\n"


def calico_like(six):
    """Verdict maps to a chain for each pod, which asks for the connection's state and calls policies that set a mark."""
    ip = "ip6" if six else "ip"
    lines = list(nft_sets(six))
    for pod_class in range(CLASSES):
        for policy in range(2):
            rules = ""
            for rule in (2 * policy, 2 * policy + 1):
                rules += (f"{ip} saddr @s{pod_class}_{rule} udp dport {PORTS[rule]} counter meta mark set meta mark or 0x10000\n"
                          "meta mark & 0x10000 == 0x10000 counter return\n")
            lines.append(f"chain policy{pod_class}_{policy} {{\n{rules}}}")
    for pod in range(PODS):
        calls = "".join(f"meta mark & 0x20000 == 0 counter jump policy{pod % CLASSES}_{policy}\n"
                        "meta mark & 0x10000 == 0x10000 counter return\n" for policy in range(2))
        lines.append(f"chain pod{pod} {{\nct state established,related counter accept\nct state invalid counter drop\n"
                     f"counter meta mark set meta mark and 0xfffcffff\n{calls}meta mark & 0x20000 == 0 counter drop\n}}")
    elements = ", ".join(f"{local(pod, six)} : goto pod{pod}" for pod in range(PODS))
    key = "ipv6_addr" if six else "ipv4_addr"
    lines.append(f"map to {{ type {key} : verdict; elements = {{ {elements} }}\n}}\nmap from {{ type {key} : verdict\n}}")
    lines.append(f"chain lookup_from {{\n{ip} saddr vmap @from\n}}\nchain lookup_to {{\n{ip} daddr vmap @to\n}}")
    lines.append("chain both {\ncounter meta mark set meta mark and 0xfff1ffff\ncounter jump lookup_from\ncounter jump lookup_to\n}")
    lines.append("chain f { type filter hook forward priority 0; counter jump both\n"
                 "meta mark & 0x10000 == 0x10000 counter accept\n}")
    return table(six, lines)


def kube_router_like(six):
    """A rule for each pod and direction one after the other, a chain for each pod, marks and counters."""
    ip = "ip6" if six else "ip"
    icmp = "icmpv6" if six else "icmp"
    pods = ", ".join(local(pod, six) for pod in range(PODS))
    lines = list(nft_sets(six))
    lines.append(f"set pods {{ type {'ipv6_addr' if six else 'ipv4_addr'}; elements = {{ {pods} }}\n}}")
    lines.append("chain common {\nct state invalid counter drop\nct state established,related counter accept\n"
                 f"{icmp} type echo-request counter accept\n}}\nchain tail {{\nmeta mark & 0x20000 == 0x20000 counter accept\n}}\n"
                 "chain default_allow {\ncounter meta mark set meta mark or 0x10000\n}")
    for pod_class in range(CLASSES):
        for policy in range(2):
            rules = "".join(f"{ip} saddr @s{pod_class}_{rule} {ip} daddr @pods udp dport {PORTS[rule]} counter "
                            "meta mark set meta mark or 0x10000 return\n" for rule in (2 * policy, 2 * policy + 1))
            lines.append(f"chain policy{pod_class}_{policy} {{\n{rules}}}")
    jumps = ""
    for pod in range(PODS):
        own, pod_class = local(pod, six), pod % CLASSES
        lines.append(f"chain pod{pod} {{\ncounter jump common\nfib saddr type local {ip} daddr {own} counter accept\n"
                     f"{ip} daddr {own} counter jump policy{pod_class}_0\n{ip} daddr {own} counter jump policy{pod_class}_1\n"
                     f"{ip} saddr {own} counter jump default_allow\n"
                     "meta mark & 0x10000 == 0 limit rate 10/minute log group 100\nmeta mark & 0x10000 == 0 counter drop\n"
                     "meta mark set meta mark and 0xfffeffff\nmeta mark set meta mark or 0x20000\n}")
        jumps += f"{ip} daddr {own} counter jump pod{pod}\n{ip} saddr {own} counter jump pod{pod}\n"
    lines.append(f"chain f {{ type filter hook forward priority 0\n{jumps}counter jump tail\n}}")
    return table(six, lines)


def kube_router_like_ipset(six):
    """The sets of `kube_router_like_iptables`, for `ipset restore`."""
    family = "inet6" if six else "inet"
    suffix = "6" if six else "4"
    lines = []
    for pod_class in range(CLASSES):
        for rule in range(4):
            lines.append(f"create s{pod_class}_{rule}_{suffix} hash:ip family {family}")
            lines += [f"add s{pod_class}_{rule}_{suffix} {peer}" for peer in peers(pod_class, rule, six)]
    lines.append(f"create pods_{suffix} hash:ip family {family}")
    lines += [f"add pods_{suffix} {local(pod, six)}" for pod in range(PODS)]
    return "\n".join(lines) + "\n"


def kube_router_like_iptables(six):
    """The same in iptables, for `iptables-restore` or `ip6tables-restore`."""
    suffix = "6" if six else "4"
    icmp = "-p icmpv6 --icmpv6-type" if six else "-p icmp --icmp-type"
    chains = ["COMMON", "DEFAULT", "TAIL"]
    rules = ["-A COMMON -m conntrack --ctstate INVALID -j DROP", "-A COMMON -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
             f"-A COMMON {icmp} echo-request -j ACCEPT", "-A DEFAULT -j MARK --set-xmark 0x10000/0x10000",
             "-A TAIL -m mark --mark 0x20000/0x20000 -j ACCEPT"]
    for pod_class in range(CLASSES):
        for policy in range(2):
            chains.append(f"POLICY{pod_class}-{policy}")
            for rule in (2 * policy, 2 * policy + 1):
                match = (f"-A POLICY{pod_class}-{policy} -m set --match-set s{pod_class}_{rule}_{suffix} src "
                         f"-m set --match-set pods_{suffix} dst -p udp -m udp --dport {PORTS[rule]}")
                rules += [f"{match} -j MARK --set-xmark 0x10000/0x10000", f"{match} -m mark --mark 0x10000/0x10000 -j RETURN"]
    for pod in range(PODS):
        own, chain, pod_class = local(pod, six), f"POD{pod}", pod % CLASSES
        chains.append(chain)
        unmarked = f"-A {chain} -m mark ! --mark 0x10000/0x10000"
        rules += [f"-A {chain} -j COMMON", f"-A {chain} -m addrtype --src-type LOCAL -d {own} -j ACCEPT",
                  f"-A {chain} -d {own} -j POLICY{pod_class}-0", f"-A {chain} -d {own} -j POLICY{pod_class}-1",
                  f"-A {chain} -s {own} -j DEFAULT", f"{unmarked} -m limit --limit 10/minute -j NFLOG --nflog-group 100",
                  f"{unmarked} -j DROP", f"-A {chain} -j MARK --set-xmark 0x0/0x10000",
                  f"-A {chain} -j MARK --set-xmark 0x20000/0x20000", f"-A FORWARD -d {own} -j {chain}",
                  f"-A FORWARD -s {own} -j {chain}"]
    rules.append("-A FORWARD -j TAIL")
    return "\n".join(["*filter", *(f":{chain} - [0:0]" for chain in chains), *rules, "COMMIT", ""])
