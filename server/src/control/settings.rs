//! Cluster configuration: names, valid values and defaults. A name is listed only if some code
//! obeys it.

use std::collections::BTreeMap;
use std::time::Duration;

use rangedb_proto::duration;
use rangedb_proto::v1::{self, ConfigValue};

/// One setting of the configuration.
pub struct Setting {
    pub name: &'static str,
    pub default: &'static str,
    pub description: &'static str,
    /// Returns the value in its canonical form, or the reason why it is invalid.
    check: fn(&str) -> Result<String, String>,
}

/// Shortest retention. A client reports a long transaction within about a second. With a shorter
/// retention its snapshot could be gone before that.
const RETENTION_MIN: Duration = Duration::from_secs(5);

/// Shortest `node_dead_after`. Nodes report every half second. With less, a node that is merely
/// slow would lose its replicas, and all nodes would if the control plane was slow.
const DEAD_AFTER_MIN: Duration = Duration::from_secs(3);

/// Shortest `node_replace_after`. A node that was heard of more recently is alive: it is
/// restarting, or was cut off for a moment.
pub const REPLACE_AFTER_MIN: Duration = Duration::from_secs(3);

/// Highest replication factor: more replicas cost every write more than they protect.
const REPLICATION_FACTOR_MAX: u32 = 7;

pub const REPLICATION_FACTOR: &str = "replication_factor";
pub const GC_RETENTION: &str = "gc_retention";
pub const NODE_DEAD_AFTER: &str = "node_dead_after";
pub const NODE_REPLACE_AFTER: &str = "node_replace_after";

/// All settings, by name.
pub const SETTINGS: [Setting; 4] = [
    Setting {
        name: GC_RETENTION,
        default: "10m",
        description: "how long versions that were overwritten or deleted can still be read",
        check: |value| at_least(RETENTION_MIN, value).map(|_| value.to_owned()),
    },
    Setting {
        name: NODE_DEAD_AFTER,
        default: "30m",
        description: "silence after which other nodes, if there are any, take over a node's replicas",
        check: |value| at_least(DEAD_AFTER_MIN, value).map(|_| value.to_owned()),
    },
    Setting {
        name: NODE_REPLACE_AFTER,
        default: "10m",
        description: "silence after which a node is removed if a new one is started at its address",
        check: |value| at_least(REPLACE_AFTER_MIN, value).map(|_| value.to_owned()),
    },
    Setting {
        name: REPLICATION_FACTOR,
        default: "3",
        description: "replicas of each range, as far as there are nodes",
        check: |value| replicas(value).map(|replicas| replicas.to_string()),
    },
];

/// Finds a setting by its name, or by its key under `_/cluster/config/`.
pub fn find(name: &str) -> Option<&'static Setting> {
    let name = name.strip_prefix("_/cluster/config/").unwrap_or(name);
    SETTINGS.iter().find(|setting| setting.name == name)
}

impl Setting {
    /// The stored value, or the default if this version cannot use the stored value. Another
    /// version may have stored it.
    pub fn in_force<'a>(&self, stored: Option<&'a str>) -> &'a str {
        stored.filter(|value| (self.check)(value).is_ok()).unwrap_or(self.default)
    }

    pub fn check(&self, value: &str) -> Result<String, v1::Error> {
        (self.check)(value).map_err(|why| {
            v1::Error::invalid("value", format!("`{value}` is no {}: {why}", self.name))
        })
    }
}

/// Settings in force: the stored values, and the defaults of those that are not stored or cannot be
/// used.
pub struct Settings {
    pub replication_factor: u32,
    pub node_dead_after: Duration,
    pub node_replace_after: Duration,
    pub gc_retention: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings::of(&BTreeMap::new())
    }
}

impl Settings {
    /// Reads the settings from their stored values.
    pub fn of(stored: &BTreeMap<String, ConfigValue>) -> Self {
        Settings {
            replication_factor: read(REPLICATION_FACTOR, stored, replicas),
            node_dead_after: read(NODE_DEAD_AFTER, stored, duration::parse),
            node_replace_after: read(NODE_REPLACE_AFTER, stored, duration::parse),
            gc_retention: read(GC_RETENTION, stored, duration::parse),
        }
    }
}

/// Reads the value in force of a setting. A default can always be read, which a test checks.
fn read<T>(
    name: &str,
    stored: &BTreeMap<String, ConfigValue>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> T {
    let setting = find(name).expect("every setting is listed");
    let value = setting.in_force(stored.get(name).map(|stored| &stored.value[..]));
    parse(value).expect("a value in force was checked")
}

/// Reads a value of [`REPLICATION_FACTOR`].
fn replicas(value: &str) -> Result<u32, String> {
    let replicas: u32 = value.parse().map_err(|_| "it must be a whole number".to_owned())?;
    if (1..=REPLICATION_FACTOR_MAX).contains(&replicas) {
        Ok(replicas)
    } else {
        Err(format!("it must be from 1 to {REPLICATION_FACTOR_MAX}"))
    }
}

fn at_least(least: Duration, value: &str) -> Result<Duration, String> {
    let wanted = duration::parse(value)?;
    match wanted >= least {
        true => Ok(wanted),
        false => Err(format!("it must be at least {least:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_that_would_be_accepted() {
        for setting in &SETTINGS {
            assert_eq!(setting.check(setting.default).as_deref(), Ok(setting.default));
        }
    }

    #[test]
    fn a_stored_value_that_cannot_be_used_gives_way_to_the_default() {
        let factor = find("replication_factor").unwrap();
        assert_eq!(factor.in_force(Some("5")), "5");
        assert_eq!(factor.in_force(Some("9 by zone")), "3");
        assert_eq!(factor.in_force(None), "3");
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        let factor = find("_/cluster/config/replication_factor").unwrap();
        for bad in ["abc", "0", "8", "-1", ""] {
            assert!(factor.check(bad).is_err(), "{bad}");
        }
        assert_eq!(factor.check("05").as_deref(), Ok("5"));
    }

    #[test]
    fn the_retention_leaves_transactions_time_to_be_known() {
        let retention = find("gc_retention").unwrap();
        assert!(retention.check("4999ms").is_err());
        assert_eq!(retention.check("5s").as_deref(), Ok("5s"));
    }

    #[test]
    fn a_node_is_not_taken_for_dead_between_two_heartbeats() {
        let dead_after = find("node_dead_after").unwrap();
        for bad in ["1ms", "2999ms", "2s"] {
            assert!(dead_after.check(bad).is_err(), "{bad}");
        }
        assert_eq!(dead_after.check("3s").as_deref(), Ok("3s"));
    }
}
