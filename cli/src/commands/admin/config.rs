//! `rangedb admin config get|set|list`: the cluster's settings. A setting is called by its name or
//! by the key that holds it, `_/cluster/config/<name>`.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use rangedb_client::Timestamp;
use rangedb_proto::v1::{ConfigEntry, ConfigValue};
use serde::Serialize;
use serde_json::json;

use crate::args::Output;
use crate::failure::Failure;
use crate::json;
use crate::session::Session;
use crate::{table, utc};

/// Prefix of the keys that hold settings.
const KEY_PREFIX: &str = "_/cluster/config/";

/// Settings of the cluster
#[derive(Debug, Subcommand)]
pub enum Config {
    Get(Get),
    Set(Set),
    /// List every setting
    List,
}

/// Print the value of a setting
#[derive(Debug, Args)]
pub struct Get {
    /// The setting, also as _/cluster/config/NAME
    #[arg(value_parser = name)]
    name: String,
    /// All values it had, who changed it and when
    #[arg(long)]
    history: bool,
}

/// Change a setting
#[derive(Debug, Args)]
pub struct Set {
    /// The setting, also as _/cluster/config/NAME
    #[arg(value_parser = name)]
    name: String,
    #[arg(allow_negative_numbers = true)]
    value: String,
    /// Only check the value
    #[arg(long)]
    dry_run: bool,
}

/// Reads the name of a setting.
fn name(text: &str) -> Result<String, String> {
    let name = text.strip_prefix(KEY_PREFIX).unwrap_or(text);
    if name.is_empty() || name.starts_with("_/") {
        return Err(format!("settings are kept under {KEY_PREFIX}"));
    }
    Ok(name.to_owned())
}

impl Config {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        match self {
            Config::Get(get) => get.run(session).await,
            Config::Set(set) => set.run(session).await,
            Config::List => list(session).await,
        }
    }
}

impl Get {
    async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        let entry = session.client.admin().config_get(&self.name, self.history).await?;
        let out = &mut *session.streams.out;
        match session.output {
            Output::Json => json::print(out, &SettingView::of(&entry, self.history))?,
            Output::Table if self.history => print_history(out, &entry)?,
            Output::Table => writeln!(out, "{}", effective_value(&entry))?,
        }
        Ok(())
    }
}

impl Set {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        let entry =
            session.client.admin().config_set(&self.name, &self.value, self.dry_run).await?;
        let out = &mut *session.streams.out;
        let (name, value) = (&entry.name, effective_value(&entry));
        let version = entry.value.as_ref().map_or(0, |value| value.version);
        match (session.output, self.dry_run) {
            (Output::Json, dry_run) => {
                let answer = json!({
                    "name": name, "value": value, "version": version, "dry_run": dry_run,
                });
                json::print(out, &answer)?;
            }
            (Output::Table, true) => {
                let value = self.value;
                writeln!(out, "dry run: {name} may be set to {value}; nothing was changed")?;
            }
            (Output::Table, false) => writeln!(out, "OK ({name} = {value}, version {version})")?,
        }
        Ok(())
    }
}

async fn list(session: &mut Session<'_>) -> Result<(), Failure> {
    let entries = session.client.admin().config_list().await?;
    let out = &mut *session.streams.out;
    if session.output == Output::Json {
        for entry in &entries {
            json::print(out, &SettingView::of(entry, false))?;
        }
        return Ok(());
    }
    let rows = entries.iter().map(|entry| {
        let value = effective_value(entry).to_owned();
        [entry.name.clone(), value, entry.default_value.clone(), entry.description.clone()]
    });
    Ok(table::print(out, ["NAME", "VALUE", "DEFAULT", "DESCRIPTION"], rows)?)
}

/// Returns the effective value of a setting: the default if nobody has changed it.
fn effective_value(entry: &ConfigEntry) -> &str {
    entry.value.as_ref().map_or(&entry.default_value, |value| &value.value)
}

/// Returns all values that the setting has had, the newest first.
fn all_values(entry: &ConfigEntry) -> Vec<&ConfigValue> {
    let mut values: Vec<_> = entry.history.iter().chain(&entry.value).collect();
    values.sort_by_key(|value| std::cmp::Reverse(value.version));
    values.dedup_by_key(|value| value.version);
    values
}

fn print_history(out: &mut dyn Write, entry: &ConfigEntry) -> io::Result<()> {
    let rows = all_values(entry).into_iter().map(|value| {
        let changed = utc::format(Timestamp(value.changed_ts));
        [value.version.to_string(), value.value.clone(), changed, value.actor.clone()]
    });
    let default =
        ["0".to_owned(), entry.default_value.clone(), "-".to_owned(), "default".to_owned()];
    table::print(out, ["VERSION", "VALUE", "CHANGED", "BY"], rows.chain([default]))
}

/// A setting, as JSON.
#[derive(Serialize)]
struct SettingView<'a> {
    name: &'a str,
    value: &'a str,
    default: &'a str,
    /// 0 if nobody has changed the setting.
    version: u64,
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<ValueView<'a>>>,
}

#[derive(Serialize)]
struct ValueView<'a> {
    version: u64,
    value: &'a str,
    changed_ts: u64,
    actor: &'a str,
}

impl<'a> SettingView<'a> {
    fn of(entry: &'a ConfigEntry, with_history: bool) -> Self {
        SettingView {
            name: &entry.name,
            value: effective_value(entry),
            default: &entry.default_value,
            version: entry.value.as_ref().map_or(0, |value| value.version),
            description: &entry.description,
            history: with_history
                .then(|| all_values(entry).into_iter().map(ValueView::of).collect()),
        }
    }
}

impl<'a> ValueView<'a> {
    fn of(value: &'a ConfigValue) -> Self {
        ValueView {
            version: value.version,
            value: &value.value,
            changed_ts: value.changed_ts,
            actor: &value.actor,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Cluster;

    #[test]
    fn a_setting_is_called_by_its_name_or_its_key() {
        let cluster = Cluster::new();
        for name in ["replication_factor", "_/cluster/config/replication_factor"] {
            cluster.run(["admin", "config", "get", name]).prints("3\n");
        }
        for name in ["", "_/cluster/config/", "_/cluster/nodes/1"] {
            assert_eq!(cluster.run(["admin", "config", "get", name]).code, 2, "{name}");
        }
    }

    #[test]
    fn set_has_two_spellings_and_says_what_holds_now() {
        let cluster = Cluster::new();
        cluster
            .run(["admin", "config", "set", "_/cluster/config/replication_factor", "5"])
            .prints("OK (replication_factor = 5, version 1)\n");
        cluster
            .run(["admin", "set", "_/cluster/config/replication_factor", "1"])
            .prints("OK (replication_factor = 1, version 2)\n");
        cluster.run(["admin", "config", "get", "replication_factor"]).prints("1\n");
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        let cluster = Cluster::new();
        cluster
            .run(["admin", "config", "set", "replication_factor", "5", "--dry-run"])
            .prints("dry run: replication_factor may be set to 5; nothing was changed\n");
        cluster.run(["admin", "config", "get", "replication_factor"]).prints("3\n");
    }

    #[test]
    fn an_unknown_setting_and_a_bad_value_are_refused() {
        let cluster = Cluster::new();
        cluster.run(["admin", "config", "get", "colour"]).fails(1, "error: NOT_FOUND: ");
        cluster
            .run(["admin", "set", "replication_factor", "-1"])
            .fails(2, "error: INVALID_ARGUMENT: value: ");
    }

    #[test]
    fn the_history_ends_with_the_default() {
        let cluster = Cluster::new();
        cluster.run(["admin", "set", "replication_factor", "5"]);
        cluster.run(["admin", "set", "replication_factor", "1"]);
        let ran = cluster.run(["admin", "config", "get", "replication_factor", "--history"]);
        ran.prints(
            "VERSION  VALUE  CHANGED                   BY\n\
             2        1      1970-01-01T00:00:00.002Z  test\n\
             1        5      1970-01-01T00:00:00.001Z  test\n\
             0        3      -                         default\n",
        );
    }

    #[test]
    fn json_has_the_value_the_default_and_the_history() {
        let cluster = Cluster::new();
        cluster.run(["admin", "set", "replication_factor", "5"]);
        let line =
            ["admin", "config", "get", "replication_factor", "--history", "--output", "json"];
        let entry: serde_json::Value = serde_json::from_slice(&cluster.run(line).out).unwrap();
        assert_eq!((&entry["value"], &entry["default"]), (&"5".into(), &"3".into()));
        assert_eq!(entry["version"], 1);
        assert_eq!(entry["history"][0]["actor"], "test");
        let list = cluster.run(["admin", "config", "list", "--output", "json"]);
        let entry: serde_json::Value = serde_json::from_slice(&list.out).unwrap();
        assert_eq!(entry["name"], "replication_factor");
        assert!(entry.get("history").is_none());
    }

    #[test]
    fn the_list_shows_what_holds_and_what_it_is_for() {
        Cluster::new().run(["admin", "config", "list"]).prints(
            "NAME                VALUE  DEFAULT  DESCRIPTION\n\
             replication_factor  3      3        replicas of each range\n",
        );
    }
}
