//! Which rules are netpol's own: by the names of tables and chains, never by a certificate's word.

use crate::check::Setting;
use crate::defect::Defect;
use crate::format::{Chain, Machine, Program, Rule, Step, Verdict};

/// Are the rules that a certificate calls netpol's own those, and no others? Then: do rules of iptables lead to chains of netpol,
/// so that what is denied at the node must be dropped by all rules together, too?
pub(crate) fn are_own(machine: &Machine, setting: &Setting<'_>) -> Result<bool, Defect> {
    let mut shared = false;
    for chain in &machine.chains {
        if chain.own != is_own(chain, setting) {
            return other(chain, "");
        }
        for rule in &chain.rules {
            let own = is_shared(chain, setting) && leads_to_own(rule, machine, setting);
            if rule.own != own {
                return other(chain, &rule.place);
            }
            shared |= own;
        }
    }
    Ok(shared)
}

fn other(chain: &Chain, place: &str) -> Result<bool, Defect> {
    let Chain { family, table, name, .. } = chain;
    let of = format!("{family} {table} {name} {place}");
    Err(Defect::OtherSetting(format!("whether `{}` is netpol's own", of.trim_end())))
}

/// Is everything netpol's own, since nothing is said of that?
fn everything(setting: &Setting<'_>) -> bool {
    setting.own_table.is_none() && setting.own_chains.is_none()
}

/// A built-in chain of iptables, in which everybody's rules stand.
fn is_shared(chain: &Chain, setting: &Setting<'_>) -> bool {
    chain.program != Program::Nft && chain.hook.is_some() && !everything(setting)
}

fn is_own(chain: &Chain, setting: &Setting<'_>) -> bool {
    everything(setting)
        || !is_shared(chain, setting)
            && match chain.program {
                Program::Nft => setting.own_table == Some(chain.table.as_str()),
                Program::IptablesLegacy | Program::IptablesNft => {
                    let rest = setting.own_chains.and_then(|own| chain.name.strip_prefix(own));
                    rest.is_some_and(|rest| rest.starts_with('-'))
                }
            }
}

fn leads_to_own(rule: &Rule, machine: &Machine, setting: &Setting<'_>) -> bool {
    rule.steps.iter().any(|step| match step {
        Step::Verdict(Verdict::Jump(to) | Verdict::Goto(to)) => {
            machine.chains.get(*to).is_some_and(|chain| is_own(chain, setting))
        }
        _ => false,
    })
}
