//! `rangedb admin gc status|hold|release`: the GC floor, and the holds that keep it back.

use clap::{Args, Subcommand};
use rangedb_client::Timestamp;
use rangedb_proto::v1::{GarbageStatus, HoldInfo};
use serde_json::{Value, json};

use crate::args::Output;
use crate::duration;
use crate::failure::Failure;
use crate::json;
use crate::session::Session;
use crate::{table, utc};

/// Old versions: how long they are kept
#[derive(Debug, Subcommand)]
pub enum Gc {
    /// Show from when on the cluster can be read, and who holds that back
    Status,
    Hold(Hold),
    Release(Release),
}

/// Keep everything that can be read at a timestamp, until it is released
///
/// A later hold of the same name takes the place of the earlier one.
#[derive(Debug, Args)]
pub struct Hold {
    /// Name of the holder
    name: String,
    /// Such as a commit_ts; now, if it is left out
    timestamp: Option<u64>,
}

/// Give up a hold
#[derive(Debug, Args)]
pub struct Release {
    name: String,
}

impl Gc {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        match self {
            Gc::Status => status(session).await,
            Gc::Hold(hold) => hold.run(session).await,
            Gc::Release(release) => release.run(session).await,
        }
    }
}

impl Hold {
    async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        let timestamp = match self.timestamp {
            None => session.client.timestamp().await?,
            Some(timestamp) => Timestamp(timestamp),
        };
        session.client.admin().hold_floor(&self.name, timestamp, None).await?;
        let out = &mut *session.streams.out;
        match session.output {
            Output::Table => writeln!(out, "OK (held at {})", timestamp.0)?,
            Output::Json => {
                json::print(out, &json!({ "name": self.name, "timestamp": timestamp.0 }))?
            }
        }
        Ok(())
    }
}

impl Release {
    async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        session.client.admin().release_floor(&self.name).await?;
        let out = &mut *session.streams.out;
        match session.output {
            Output::Table => writeln!(out, "OK (released)")?,
            Output::Json => json::print(out, &json!({ "released": self.name }))?,
        }
        Ok(())
    }
}

async fn status(session: &mut Session<'_>) -> Result<(), Failure> {
    let status = session.client.admin().garbage_status().await?;
    let out = &mut *session.streams.out;
    if session.output == Output::Json {
        return Ok(json::print(out, &view(&status))?);
    }
    table::print_fields(
        out,
        [
            ("now", moment(status.now_ts, &status)),
            ("readable from", moment(status.floor_ts, &status)),
            ("dropped below", moment(status.collect_below_ts, &status)),
            ("retention", duration::rounded(status.retention_ms)),
        ],
    )?;
    writeln!(out)?;
    let rows = status
        .holds
        .iter()
        .map(|hold| [hold.name.clone(), moment(hold.timestamp, &status), held_for(hold)]);
    Ok(table::print(out, ["HOLD", "TIMESTAMP", "FOR"], rows)?)
}

/// Formats a timestamp in three forms: the number that commands take, the date in UTC, and the age.
fn moment(timestamp: u64, status: &GarbageStatus) -> String {
    if timestamp == 0 {
        return "the beginning".to_owned();
    }
    let at = utc::format(Timestamp(timestamp));
    let ago = lag_ms(timestamp, status);
    format!("{timestamp} ({at}, {} ago)", duration::rounded(ago))
}

fn lag_ms(timestamp: u64, status: &GarbageStatus) -> u64 {
    Timestamp(status.now_ts).millis().saturating_sub(Timestamp(timestamp).millis())
}

fn held_for(hold: &HoldInfo) -> String {
    match hold.remaining_ms {
        None => "until it is released".to_owned(),
        Some(millis) => format!("{} more", duration::rounded(millis)),
    }
}

fn view(status: &GarbageStatus) -> Value {
    let hold = |hold: &HoldInfo| {
        json!({
            "name": hold.name,
            "timestamp": hold.timestamp,
            "remaining_ms": hold.remaining_ms,
        })
    };
    json!({
        "now_ts": status.now_ts,
        "floor_ts": status.floor_ts,
        "floor_lag_ms": lag_ms(status.floor_ts, status),
        "collect_below_ts": status.collect_below_ts,
        "retention_ms": status.retention_ms,
        "holds": status.holds.iter().map(hold).collect::<Vec<Value>>(),
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Cluster;

    fn status(cluster: &Cluster) -> serde_json::Value {
        let ran = cluster.run(["admin", "gc", "status", "--output", "json"]);
        serde_json::from_slice(&ran.out).unwrap()
    }

    #[test]
    fn the_status_says_from_when_on_can_be_read_and_why() {
        let cluster = Cluster::new();
        let ran = cluster.run(["admin", "gc", "status"]);
        let text = String::from_utf8(ran.out).unwrap();
        assert!(text.contains("retention      10m\n"), "{text}");
        assert!(text.contains("1970-01-01T00:01:40.000Z, 10m ago)"), "{text}");
        assert!(text.contains("dropped below  the beginning\n"), "{text}");
        assert!(text.contains("HOLD") && text.contains("transactions"), "{text}");
        let status = status(&cluster);
        assert_eq!(status["floor_lag_ms"], 600_000);
        assert_eq!(status["holds"][0]["remaining_ms"], 7_000);
    }

    #[test]
    fn a_hold_stays_until_it_is_released() {
        let cluster = Cluster::new();
        cluster.run(["admin", "gc", "hold", "backup", "77"]).prints("OK (held at 77)\n");
        let held = status(&cluster);
        assert_eq!(held["holds"][1]["name"], "backup");
        assert_eq!(held["holds"][1]["timestamp"], 77);
        assert_eq!(held["holds"][1]["remaining_ms"], serde_json::Value::Null);
        cluster.run(["admin", "gc", "release", "backup"]).prints("OK (released)\n");
        assert_eq!(status(&cluster)["holds"].as_array().unwrap().len(), 1);
        assert_eq!(cluster.run(["admin", "gc", "hold", "now"]).code, 0);
        assert!(status(&cluster)["holds"][1]["timestamp"].as_u64().unwrap() > 0);
    }
}
