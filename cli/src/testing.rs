//! Cluster in memory for tests. A test runs a whole command line against the cluster and checks its
//! output and exit code. The cluster has one range and no failures of its own; time is the real
//! one.

mod fixtures;
mod rows;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, Cursor};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use rangedb_client::Client;
use rangedb_client::net::{BoxFuture, CallError, Net};
use rangedb_proto::v1::{self, request, response};

use crate::args;
use crate::commands::Command;
use crate::failure;
use crate::session::{Session, Streams};
use fixtures::{garbage, locate, locks, meta_read, nodes, partitions, status};
use rows::Rows;

type Refusal = Box<v1::Error>;

#[derive(Clone)]
pub struct Cluster {
    state: Arc<Mutex<State>>,
    began: Instant,
}

#[derive(Default)]
struct State {
    rows: Rows,
    removed: Vec<String>,
    /// Range id and index of each skipped entry.
    skipped: Vec<(u64, u64)>,
    /// Values of the one setting, the oldest first.
    config: Vec<v1::ConfigValue>,
    holds: Vec<v1::HoldFloor>,
    cluster_id: u64,
    /// If true, commits happen and their answers are lost.
    answers_are_lost: bool,
    /// Error that answers every read and write of a range.
    error: Option<v1::Error>,
}

/// Exit code and output of a command line.
pub struct Ran {
    pub code: u8,
    pub out: Vec<u8>,
    pub notes: String,
}

impl Ran {
    /// Asserts success with exactly this output and no note.
    #[track_caller]
    pub fn prints(&self, text: &str) {
        assert_eq!(String::from_utf8_lossy(&self.out), text);
        assert_eq!((self.code, &self.notes[..]), (0, ""));
    }

    /// Asserts failure with this code, a message that begins so, and no other output.
    #[track_caller]
    pub fn fails(&self, code: u8, message: &str) {
        assert!(self.notes.starts_with(message), "`{}` does not begin `{message}`", self.notes);
        assert_eq!((self.code, &self.out[..]), (code, &b""[..]), "{}", self.notes);
    }
}

impl Cluster {
    pub fn new() -> Self {
        Self::with_id(0xab)
    }

    pub fn with_id(cluster_id: u64) -> Self {
        let state = State { cluster_id, ..State::default() };
        Cluster { state: Arc::new(Mutex::new(state)), began: Instant::now() }
    }

    pub fn lose_answers(&self, lost: bool) {
        self.state().answers_are_lost = lost;
    }

    pub fn failing(error: v1::Error) -> Self {
        let cluster = Self::new();
        cluster.state().error = Some(error);
        cluster
    }

    pub fn set(&self, key: impl Into<Bytes>, value: &[u8]) {
        self.state().rows.set(key.into(), value.to_vec().into());
    }

    pub fn value(&self, key: &'static str) -> Option<Bytes> {
        self.rows().get(key.as_bytes()).map(|row| row.value.clone())
    }

    pub fn rows(&self) -> BTreeMap<Bytes, v1::KeyValue> {
        self.state().rows.newest()
    }

    pub fn removed(&self) -> Vec<String> {
        self.state().removed.clone()
    }

    pub fn skipped(&self) -> Vec<(u64, u64)> {
        self.state().skipped.clone()
    }

    pub fn run(&self, line: impl IntoIterator<Item = impl Into<OsString>>) -> Ran {
        self.run_in(line, Cursor::new(""), false)
    }

    pub fn run_with_input(
        &self,
        line: impl IntoIterator<Item = impl Into<OsString>>,
        input: &[u8],
    ) -> Ran {
        self.run_in(line, Cursor::new(input.to_vec()), false)
    }

    pub fn run_at_terminal(
        &self,
        line: impl IntoIterator<Item = impl Into<OsString>>,
        typed: &str,
    ) -> Ran {
        self.run_in(line, Cursor::new(typed.to_owned()), true)
    }

    pub fn run_reading(
        &self,
        line: impl IntoIterator<Item = impl Into<OsString>>,
        input: impl BufRead + Send + 'static,
    ) -> Ran {
        self.run_in(line, input, false)
    }

    fn run_in(
        &self,
        line: impl IntoIterator<Item = impl Into<OsString>>,
        input: impl BufRead + Send + 'static,
        interactive: bool,
    ) -> Ran {
        let line: Vec<OsString> = [OsString::from("rangedb")]
            .into_iter()
            .chain(line.into_iter().map(Into::into))
            .collect();
        let cli = match args::parse(line) {
            Ok(cli) => cli,
            Err(error) => {
                let code = u8::try_from(error.exit_code()).unwrap();
                return Ran { code, out: Vec::new(), notes: error.to_string() };
            }
        };
        let Some(Command::Client(command)) = cli.command else { panic!("asks no cluster") };
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let input = Box::new(input);
        let streams = Streams { input, out: &mut out, notes: &mut notes, interactive };
        let client = Client::with_net(Arc::new(self.clone()), cli.globals.client_config()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut session = Session::new(client, &cli.globals, streams);
        let result = runtime.block_on(command.run(&mut session));
        let code = failure::report(result, &mut notes);
        Ran { code, out, notes: String::from_utf8(notes).unwrap() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Net for Cluster {
    fn call<'a>(
        &'a self,
        _address: &'a str,
        request: request::Body,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<response::Body, CallError>> {
        let lost = self.state().answers_are_lost && matches!(request, request::Body::Write(_));
        let response = self.state().answer(request);
        let response = response.unwrap_or_else(|error| response::Body::Error(*error));
        Box::pin(async move {
            if lost { Err(CallError::Lost("lost".to_owned())) } else { Ok(response) }
        })
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn random_below(&self, _bound: u64) -> u64 {
        0
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

impl State {
    fn answer(&mut self, request: request::Body) -> Result<response::Body, Refusal> {
        use request::Body as Request;
        use response::Body as Answer;
        if let (Some(error), Request::PointRead(_) | Request::Scan(_) | Request::Write(_)) =
            (&self.error, &request)
        {
            return Err(error.clone().into());
        }
        Ok(match request {
            Request::Locate(_) => Answer::Locate(locate()),
            Request::Timestamps(v1::Timestamps { count }) => {
                let last = self.rows.hand_out(count);
                Answer::Timestamps(v1::TimestampsReply { last, count })
            }
            Request::PointRead(read) => {
                let kv = self.rows.at(&read.key, read.read_ts);
                Answer::PointRead(v1::PointReadReply { kv })
            }
            Request::Scan(scan) => Answer::Scan(self.rows.scan(&scan)),
            Request::Write(write) => {
                let committed = Some(self.rows.commit(write.commit.unwrap())?);
                Answer::Write(v1::WriteReply { committed })
            }
            Request::ClusterStatus(_) => Answer::ClusterStatus(status(self.cluster_id)),
            Request::RemoveNode(remove) => Answer::RemoveNode(self.remove_node(remove)?),
            Request::SkipEntry(skip) => Answer::SkipEntry(self.skip_entry(skip)?),
            Request::MetaRead(read) => Answer::MetaRead(meta_read(&read)),
            Request::ConfigGet(get) => {
                let known = matches!(get.name.as_str(), "" | "replication_factor");
                let entries = if known { vec![self.setting(get.history)] } else { Vec::new() };
                Answer::ConfigGet(v1::ConfigGetReply { entries })
            }
            Request::ConfigSet(set) => Answer::ConfigSet(self.config_set(set)?),
            Request::ListLocks(list) => Answer::ListLocks(locks(&list)),
            Request::GarbageStatus(_) => Answer::GarbageStatus(garbage(&self.holds)),
            Request::HoldFloor(hold) => {
                self.holds.retain(|held| held.name != hold.name);
                if hold.timestamp > 0 {
                    self.holds.push(hold);
                }
                Answer::HoldFloor(v1::HoldFloorReply { floor_ts: 1 })
            }
            Request::PartitionList(_) => {
                let partitions = partitions();
                Answer::PartitionList(v1::PartitionListReply { partitions, more: false })
            }
            other => panic!("no command asks this: {other:?}"),
        })
    }

    fn remove_node(&mut self, remove: v1::RemoveNode) -> Result<v1::RemoveNodeReply, Refusal> {
        let node = nodes().into_iter().find(|node| {
            node.peer_address == remove.node || node.node_id.to_string() == remove.node
        });
        let node = node.ok_or_else(|| v1::Error::not_found("no node has this address"))?;
        if !remove.dry_run {
            self.removed.push(node.peer_address.clone());
        }
        Ok(v1::RemoveNodeReply { node: Some(node), range_ids: vec![1, 4] })
    }

    fn skip_entry(&mut self, skip: v1::SkipEntry) -> Result<v1::SkipEntryReply, Refusal> {
        let standing = partitions().into_iter().flat_map(|partition| partition.quarantined);
        let asked = (skip.range_id, skip.index);
        let replicas: Vec<_> = standing.filter(|r| (r.range_id, r.index) == asked).collect();
        if replicas.is_empty() {
            return Err(Box::new(v1::Error::failed_precondition("no replica stands there")));
        }
        if !skip.dry_run {
            self.skipped.push(asked);
        }
        Ok(v1::SkipEntryReply { replicas })
    }

    fn setting(&self, with_history: bool) -> v1::ConfigEntry {
        v1::ConfigEntry {
            name: "replication_factor".to_owned(),
            value: self.config.last().cloned(),
            default_value: "3".to_owned(),
            description: "replicas of each range".to_owned(),
            history: if with_history { self.config.clone() } else { Vec::new() },
        }
    }

    fn config_set(&mut self, set: v1::ConfigSet) -> Result<v1::ConfigSetReply, Refusal> {
        if set.value.parse::<u32>().is_err() {
            return Err(v1::Error::invalid("value", "it must be a whole number").into());
        }
        if !set.dry_run {
            let version = self.config.len() as u64 + 1;
            let changed_ts = rangedb_client::Timestamp::from_millis(version).0;
            let value = set.value;
            let actor = "test".to_owned();
            let request_id = set.request_id;
            self.config.push(v1::ConfigValue { value, version, actor, changed_ts, request_id });
        }
        Ok(v1::ConfigSetReply { entry: Some(self.setting(false)) })
    }
}
