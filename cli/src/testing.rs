//! A cluster in memory for tests: whole command lines are run against it, and what they print and
//! exit with is looked at. It has one range and no failures of its own; time is the real one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rangedb_client::Client;
use rangedb_client::net::{BoxFuture, CallError, Net};
use rangedb_proto::v1::{self, operation, request, response};

use crate::args;
use crate::commands::Command;
use crate::failure;
use crate::session::{Session, Streams};

type Refusal = Box<v1::Error>;

/// Rows in a page of a scan, few enough that small tests have many pages.
const PAGE_ROWS: usize = 100;

#[derive(Clone)]
pub struct Cluster {
    state: Arc<Mutex<State>>,
    began: Instant,
}

#[derive(Default)]
struct State {
    rows: BTreeMap<Bytes, v1::KeyValue>,
    last_ts: u64,
    removed: Vec<String>,
    /// Values of the one setting, the oldest first.
    config: Vec<v1::ConfigValue>,
    /// Answered to every read and write of a range.
    error: Option<v1::Error>,
}

/// How a command line ended.
pub struct Ran {
    pub code: u8,
    pub out: Vec<u8>,
    pub notes: String,
}

impl Ran {
    /// It succeeded with exactly this output and no note.
    #[track_caller]
    pub fn prints(&self, text: &str) {
        assert_eq!(String::from_utf8_lossy(&self.out), text);
        assert_eq!((self.code, &self.notes[..]), (0, ""));
    }

    /// It failed with this code and a message that begins so, and printed nothing else.
    #[track_caller]
    pub fn fails(&self, code: u8, message: &str) {
        assert!(self.notes.starts_with(message), "`{}` does not begin `{message}`", self.notes);
        assert_eq!((self.code, &self.out[..]), (code, &b""[..]), "{}", self.notes);
    }
}

impl Cluster {
    pub fn new() -> Self {
        Cluster { state: Arc::default(), began: Instant::now() }
    }

    pub fn failing(error: v1::Error) -> Self {
        let cluster = Self::new();
        cluster.state().error = Some(error);
        cluster
    }

    pub fn set(&self, key: impl Into<Bytes>, value: &[u8]) {
        self.state().put(key.into(), value.to_vec().into());
    }

    pub fn value(&self, key: &'static str) -> Option<Bytes> {
        self.state().rows.get(key.as_bytes()).map(|row| row.value.clone())
    }

    pub fn rows(&self) -> BTreeMap<Bytes, v1::KeyValue> {
        self.state().rows.clone()
    }

    pub fn removed(&self) -> Vec<String> {
        self.state().removed.clone()
    }

    pub fn run(&self, line: impl IntoIterator<Item = impl Into<OsString>>) -> Ran {
        self.run_in(line, b"", false)
    }

    pub fn run_with_input(
        &self,
        line: impl IntoIterator<Item = impl Into<OsString>>,
        input: &[u8],
    ) -> Ran {
        self.run_in(line, input, false)
    }

    pub fn run_at_terminal(
        &self,
        line: impl IntoIterator<Item = impl Into<OsString>>,
        typed: &str,
    ) -> Ran {
        self.run_in(line, typed.as_bytes(), true)
    }

    fn run_in(
        &self,
        line: impl IntoIterator<Item = impl Into<OsString>>,
        mut input: &[u8],
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
        let streams = Streams { input: &mut input, out: &mut out, notes: &mut notes, interactive };
        let client = Client::with_net(Arc::new(self.clone()), cli.globals.client_config()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut session = Session { client, output: cli.globals.output, streams };
        let result = runtime.block_on(command.run(&mut session));
        let code = failure::report(result, &mut notes);
        Ran { code, out, notes: String::from_utf8(notes).unwrap() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Net for Cluster {
    fn call<'a>(
        &'a self,
        _address: &'a str,
        request: request::Body,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<response::Body, CallError>> {
        let response = self.state().answer(request);
        let response = response.unwrap_or_else(|error| response::Body::Error(*error));
        Box::pin(async move { Ok(response) })
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
        use request::Body as Ask;
        use response::Body as Answer;
        if let (Some(error), Ask::PointRead(_) | Ask::Scan(_) | Ask::Write(_)) =
            (&self.error, &request)
        {
            return Err(error.clone().into());
        }
        Ok(match request {
            Ask::Locate(_) => Answer::Locate(locate()),
            Ask::Timestamps(v1::Timestamps { count }) => {
                self.last_ts += u64::from(count);
                Answer::Timestamps(v1::TimestampsReply { last: self.last_ts, count })
            }
            Ask::PointRead(read) => {
                let kv = self.rows.get(&read.key).cloned();
                Answer::PointRead(v1::PointReadReply { kv })
            }
            Ask::Scan(scan) => Answer::Scan(self.scan(&scan)),
            Ask::Write(write) => {
                let committed = Some(self.write(write.commit.unwrap()));
                Answer::Write(v1::WriteReply { committed })
            }
            Ask::ClusterStatus(_) => Answer::ClusterStatus(status()),
            Ask::RemoveNode(remove) => Answer::RemoveNode(self.remove_node(remove)?),
            Ask::MetaRead(read) => Answer::MetaRead(meta_read(&read)),
            Ask::ConfigGet(get) => {
                let known = matches!(get.name.as_str(), "" | "replication_factor");
                let entries = if known { vec![self.setting(get.history)] } else { Vec::new() };
                Answer::ConfigGet(v1::ConfigGetReply { entries })
            }
            Ask::ConfigSet(set) => Answer::ConfigSet(self.config_set(set)?),
            Ask::PartitionList(_) => {
                let partitions = partitions();
                Answer::PartitionList(v1::PartitionListReply { partitions, more: false })
            }
            other => panic!("no command asks this: {other:?}"),
        })
    }

    fn put(&mut self, key: Bytes, value: Bytes) {
        self.last_ts += 1;
        let before = self.rows.get(&key);
        let row = v1::KeyValue {
            key: key.clone(),
            value,
            version: before.map_or(0, |row| row.version) + 1,
            create_ts: before.map_or(self.last_ts, |row| row.create_ts),
            mod_ts: self.last_ts,
            lease_id: 0,
        };
        self.rows.insert(key, row);
    }

    fn write(&mut self, commit: v1::CommitOneRange) -> v1::Committed {
        assert!(commit.conditions.is_empty(), "no command sets conditions");
        let commit_ts = self.last_ts + 1;
        let mut results = Vec::new();
        for operation in commit.operations {
            let mut deleted = 0;
            match operation.body.unwrap() {
                operation::Body::Put(put) => {
                    self.last_ts = commit_ts - 1;
                    self.put(put.key, put.value);
                }
                operation::Body::Delete(delete) => {
                    deleted = u64::from(self.rows.remove(&delete.key).is_some());
                }
                operation::Body::DeleteRange(_) => panic!("no command deletes ranges"),
            }
            results.push(v1::OperationResult { deleted, previous: None });
        }
        self.last_ts = commit_ts;
        v1::Committed { commit_ts, results, repeated_command: false }
    }

    fn scan(&self, scan: &v1::Scan) -> v1::ScanReply {
        let inside = |key: &Bytes| {
            *key >= scan.start_key && (scan.end_key.is_empty() || *key < scan.end_key)
        };
        let mut rows: Vec<_> = self.rows.values().filter(|row| inside(&row.key)).cloned().collect();
        if scan.reverse {
            rows.reverse();
        }
        let asked = if scan.limit == 0 { usize::MAX } else { scan.limit as usize };
        let more = rows.len() > PAGE_ROWS.min(asked);
        rows.truncate(PAGE_ROWS.min(asked));
        if scan.keys_only {
            rows.iter_mut().for_each(|row| row.value = Bytes::new());
        }
        let last = rows.last().map(|row| row.key.to_vec()).unwrap_or_default();
        let resume_key = match (more, scan.reverse) {
            (false, _) => Bytes::new(),
            (true, true) => last.into(),
            (true, false) => [&last[..], b"\0"].concat().into(),
        };
        v1::ScanReply { kvs: rows, more, resume_key }
    }

    fn remove_node(&mut self, remove: v1::RemoveNode) -> Result<v1::RemoveNodeReply, Refusal> {
        let node = nodes().into_iter().find(|node| node.peer_address == remove.node);
        let node = node.ok_or_else(|| v1::Error::not_found("no node has this address"))?;
        if !remove.dry_run {
            self.removed.push(remove.node);
        }
        Ok(v1::RemoveNodeReply { node: Some(node), range_ids: vec![1, 4] })
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
            self.config.push(v1::ConfigValue { value, version, actor: "test".into(), changed_ts });
        }
        Ok(v1::ConfigSetReply { entry: Some(self.setting(false)) })
    }
}

fn nodes() -> Vec<v1::NodeDescriptor> {
    let node = |node_id: u64, state: v1::NodeState| v1::NodeDescriptor {
        node_id,
        peer_address: format!("n{node_id}:8080"),
        client_address: format!("n{node_id}:8081"),
        status_address: format!("n{node_id}:8085"),
        directory_id: node_id,
        state: state.into(),
        version: "0.1.0".to_owned(),
    };
    vec![node(1, v1::NodeState::NodeUp), node(2, v1::NodeState::NodeDead)]
}

fn locate() -> v1::LocateReply {
    let replicas = vec![v1::Replica { replica_id: 1, node_id: 1, role: 0 }];
    let descriptor = v1::RangeDescriptor {
        range_id: 1,
        epoch: Some(v1::Epoch { version: 1, conf_ver: 1 }),
        replicas,
        next_replica_id: 2,
        ..Default::default()
    };
    let range = v1::RangeLocation { descriptor: Some(descriptor), leader_node_id: 1 };
    v1::LocateReply { ranges: vec![range], nodes: nodes() }
}

fn status() -> v1::ClusterStatus {
    let stats = v1::NodeStats {
        disk_total_bytes: 8 << 30,
        disk_available_bytes: 2 << 30,
        replicas: 6,
        leaders: 5,
        ..Default::default()
    };
    let [first, second] = nodes().try_into().unwrap();
    let first = v1::NodeStatus { node: Some(first), silent_ms: Some(40), stats: Some(stats) };
    let second = v1::NodeStatus { node: Some(second), silent_ms: None, stats: None };
    v1::ClusterStatus {
        cluster_id: 0xab,
        nodes: vec![first, second],
        replication_factor: 3,
        ranges: 6,
        ranges_under_replicated: 6,
        ranges_without_leader: 1,
        control_leader_node_id: 1,
    }
}

/// One entry a page.
fn meta_read(read: &v1::MetaRead) -> v1::MetaReadReply {
    let keys = [
        ("_/cluster/id", "\"ab\""),
        ("_/cluster/nodes/1", "{\"node_id\":1}"),
        ("_/cluster/nodes/2", "{\"node_id\":2}"),
    ];
    let matches = |key: &[u8]| {
        if read.exact { key == &read.prefix[..] } else { key.starts_with(&read.prefix) }
    };
    let mut found = keys
        .into_iter()
        .filter(|(key, _)| matches(key.as_bytes()) && key.as_bytes() > &read.after[..])
        .map(|(key, json)| v1::MetaEntry {
            key: key.into(),
            json: json.into(),
            version: 1,
            mod_ts: 9,
        });
    let entries: Vec<_> = found.next().into_iter().collect();
    v1::MetaReadReply { more: found.next().is_some(), entries }
}

fn partitions() -> Vec<v1::PartitionStatus> {
    let partition = |range_id: u64, start: &'static [u8], end: &'static [u8], conf_ver: u64| {
        let descriptor = v1::RangeDescriptor {
            range_id,
            start_key: start.into(),
            end_key: end.into(),
            epoch: Some(v1::Epoch { version: 1, conf_ver }),
            replicas: vec![v1::Replica { replica_id: 1, node_id: 1, role: 0 }],
            next_replica_id: 2,
        };
        v1::RangeReport { descriptor: Some(descriptor), term: 5, ..Default::default() }
    };
    let mut growing = partition(1, b"", b"a\t", 3);
    let learner = v1::Replica { replica_id: 7, node_id: 2, role: v1::ReplicaRole::Learner.into() };
    growing.descriptor.as_mut().unwrap().replicas.push(learner);
    growing.leader_node_id = 1;
    growing.down_replica_ids = vec![7];
    vec![
        v1::PartitionStatus {
            report: Some(growing),
            reported_ms: Some(30),
            operation: "add learner".to_owned(),
        },
        v1::PartitionStatus { report: Some(partition(4, b"a\t", b"", 1)), ..Default::default() },
    ]
}
