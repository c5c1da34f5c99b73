//! Requests of clients, the scheduler and the oracle to a store, and the evaluation of reads.

use rangedb_proto::v1::{
    AddLearner, Epoch, LogEntry, RangeOperation, RemoveReplica, ReplaceVoter, TransferLeader,
    range_operation::Body,
};
use rangedb_proto::{RangeId, Timestamp};
use rangedb_raftstore::{Event, FEATURE_LEVEL, RangeRef, ReadMode};
use rangedb_storage::ColumnFamily;

use super::node::ReadableRead;
use super::words::{Words, shortened_value, written_out};
use super::{Cluster, RANGE};

/// A read in flight.
#[derive(Clone)]
pub struct Read {
    key: String,
    at: ReadMode,
    range: RangeRef,
}

fn range(version: u64) -> RangeRef {
    RangeRef { id: RangeId(RANGE), epoch: Epoch { version, conf_ver: 0 } }
}

impl Cluster {
    pub fn next_request(&mut self) -> u64 {
        self.last_request += 1;
        self.last_request
    }

    pub fn propose(&mut self, words: &mut Words<'_>) {
        let id = words.number();
        let range = range(words.named_number("epoch").unwrap_or(1));
        let cost = words.named_number("cost").unwrap_or(1) as u32;
        let frees_space = words.flag("freeing");
        for command in words.list() {
            let command = written_out(&command).into();
            let request = self.next_request();
            self.node(id).step(Event::Propose { request, range, command, cost, frees_space });
        }
        self.flush(id);
    }

    pub fn read(&mut self, words: &mut Words<'_>) {
        let id = words.number();
        let range = range(words.named_number("epoch").unwrap_or(1));
        for read in words.list() {
            let mut words = Words::new(&read);
            let key = words.take().to_owned();
            let at = match words.take() {
                "latest" => ReadMode::Latest,
                "snapshot" => ReadMode::Snapshot(Timestamp(words.number())),
                other => panic!("no read is called {other:?}"),
            };
            let confirm = words.flag("confirm");
            words.expect_end();
            let request = self.next_request();
            self.reads.insert(request, Read { key, at, range });
            self.node(id).step(Event::Read { request, range, at, confirm });
        }
        self.flush(id);
    }

    pub fn on_read_ready(&mut self, id: u64, read: ReadableRead) {
        if self.node(id).reads_paused {
            self.out.push(format!("n{id} read #{} may be served", read.request));
            self.node(id).reads.push(read);
        } else {
            self.serve_read(id, read);
        }
    }

    pub fn resume_reads(&mut self, id: u64) {
        self.node(id).reads_paused = false;
        for read in std::mem::take(&mut self.node(id).reads) {
            self.serve_read(id, read);
        }
        self.flush(id);
    }

    /// Evaluates a read as the performer of the effect must: checks the clock after it has used the
    /// reader.
    fn serve_read(&mut self, id: u64, read: ReadableRead) {
        let ReadableRead { request, reader, lease_until } = read;
        let Read { key, at, range } = self.reads[&request].clone();
        let value = reader.get(ColumnFamily::Current, key.as_bytes()).unwrap();
        let value = value.map_or("-".into(), |value| String::from_utf8(value.to_vec()).unwrap());
        let value = shortened_value(&value);
        let now = self.node(id).clock;
        let line = match lease_until {
            None => format!("n{id} read #{request} {key}={value}, confirmed by a quorum"),
            Some(until) if now < until => {
                let (now_ms, until_ms) = (now.0 / 1000, until.0 / 1000);
                format!(
                    "n{id} read #{request} {key}={value}, at {now_ms} ms, leased to {until_ms} ms"
                )
            }
            Some(_) => {
                self.node(id).step(Event::Read { request, range, at, confirm: true });
                format!("n{id} read #{request} outlived its lease, asked again")
            }
        };
        self.out.push(line);
    }

    pub fn fence(&mut self, id: u64, term: u64, timestamp: u64) {
        let timestamp = Timestamp(timestamp);
        self.event(id, Event::Fenced { range: RangeId(RANGE), term, timestamp });
    }

    pub fn operate(&mut self, words: &mut Words<'_>) {
        let id = words.number();
        let epoch = match words.named("epoch") {
            Some(epoch) => {
                let (version, conf_ver) = epoch.split_once('.').unwrap();
                let (version, conf_ver) = (version.parse().unwrap(), conf_ver.parse().unwrap());
                Some(Epoch { version, conf_ver })
            }
            None => self.node(id).status().and_then(|status| status.descriptor.epoch),
        };
        let body = match words.take() {
            "add-learner" => Body::AddLearner(AddLearner { node_id: words.number() }),
            "promote" => {
                let promote_replica_id = words.number();
                Body::ReplaceVoter(ReplaceVoter { promote_replica_id, remove_replica_id: 0 })
            }
            "replace" => {
                let remove_replica_id = words.number();
                assert!(words.flag("by"), "replace P by P");
                let promote_replica_id = words.number();
                Body::ReplaceVoter(ReplaceVoter { promote_replica_id, remove_replica_id })
            }
            "remove" => Body::RemoveReplica(RemoveReplica { replica_id: words.number() }),
            "transfer" => Body::TransferLeader(TransferLeader { to_replica_id: words.number() }),
            other => panic!("no operation is called {other:?}"),
        };
        let request = self.next_request();
        let operation = RangeOperation { range_id: RANGE, epoch, body: Some(body) };
        self.event(id, Event::Operate { request, operation });
    }

    /// Delivers an append that the leader on one end of the link did not send: the next entry of
    /// the log, committed, with an epoch and a feature level of the script's choice.
    pub fn forge(&mut self, words: &mut Words<'_>) {
        use prost::Message as _;
        use protobuf::Message as _;
        let (from, to) = words.link().ends();
        let epoch = words.named_number("epoch").unwrap_or(1);
        let feature_level = words.named_number("level").map_or(FEATURE_LEVEL, |n| n as u32);
        let commands = words.list().into_iter().map(|command| command.into()).collect();
        let sender = self.node(from).status().expect("a leader");
        let receiver = self.node(to).status().expect("a follower");
        let log_entry = LogEntry {
            feature_level,
            epoch: Some(Epoch { version: epoch, conf_ver: 1 }),
            commands,
            cost: 1,
            ..Default::default()
        };
        let entry = raft::eraftpb::Entry {
            index: receiver.last_index + 1,
            term: sender.term,
            data: log_entry.encode_to_vec().into(),
            ..Default::default()
        };
        let mut message = raft::eraftpb::Message {
            from: sender.replica.replica_id,
            to: receiver.replica.replica_id,
            term: sender.term,
            index: receiver.last_index,
            log_term: receiver.applied_term,
            commit: entry.index,
            entries: vec![entry].into(),
            ..Default::default()
        };
        message.set_msg_type(raft::eraftpb::MessageType::MsgAppend);
        let bytes = message.write_to_bytes().unwrap().into();
        self.event(
            to,
            Event::Message(rangedb_proto::v1::RaftEnvelope {
                range_id: RANGE,
                from: Some(sender.replica),
                to: Some(receiver.replica),
                epoch: sender.descriptor.epoch,
                vote_promise_us: 0,
                short_of_room: false,
                body: Some(rangedb_proto::v1::raft_envelope::Body::Message(bytes)),
            }),
        );
    }
}
