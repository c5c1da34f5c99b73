//! Cluster of three database processes on loopback; they end when the value is dropped.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Failure;
use crate::etcd::Etcd;
use crate::load::Target;
use crate::rangedb::RangeDb;

const NODES: usize = 3;

/// Time to form a cluster at most. It takes seconds; longer means that it failed.
const START_MAX: Duration = Duration::from_secs(60);

/// A database that is measured.
pub struct Contestant {
    pub name: String,
    pub cluster: Cluster,
    pub target: Box<dyn Target>,
}

impl Contestant {
    /// Names the cluster and connects to it, once it takes writes.
    pub async fn new(name: impl Into<String>, cluster: Cluster) -> Result<Self, Failure> {
        let target = cluster.connect().await?;
        Ok(Contestant { name: name.into(), cluster, target })
    }
}

enum Database {
    RangeDb,
    Etcd,
}

pub struct Cluster {
    database: Database,
    endpoints: Vec<String>,
    processes: Vec<Child>,
    /// Holds the data; removed with the cluster.
    _directory: TempDir,
}

impl Cluster {
    /// Starts a RangeDB cluster. `more` are further arguments of each node.
    pub fn rangedb(binary: &Path, more: &[String]) -> Result<Self, Failure> {
        let directory = TempDir::new()?;
        let [peers, clients, statuses] = [free_ports()?, free_ports()?, free_ports()?];
        let all_peers = peers.iter().map(local).collect::<Vec<_>>().join(",");
        let mut processes = Vec::new();
        for node in 0..NODES {
            let mut command = Command::new(binary);
            command.arg("server").arg("--cluster-init");
            command.args(["--peers", &all_peers, "--log-level", "warn"]);
            command.args(["--peer-address", &local(&peers[node])]);
            command.args(["--client-address", &local(&clients[node])]);
            command.args(["--status-address", &local(&statuses[node])]);
            command.arg("--data-dir").arg(directory.path().join(format!("n{node}")));
            command.args(more);
            processes.push(spawn(command)?);
        }
        let endpoints = clients.iter().map(local).collect();
        Ok(Cluster { database: Database::RangeDb, endpoints, processes, _directory: directory })
    }

    pub fn etcd(binary: &Path) -> Result<Self, Failure> {
        let directory = TempDir::new()?;
        let [peers, clients] = [free_ports()?, free_ports()?];
        let url = |port: &u16| format!("http://{}", local(port));
        let member = |(node, port): (usize, &u16)| format!("n{node}={}", url(port));
        let members = peers.iter().enumerate().map(member).collect::<Vec<_>>().join(",");
        let mut processes = Vec::new();
        for node in 0..NODES {
            let mut command = Command::new(binary);
            command.args(["--name", &format!("n{node}"), "--initial-cluster", &members]);
            command.args(["--initial-advertise-peer-urls", &url(&peers[node])]);
            command.args(["--listen-peer-urls", &url(&peers[node])]);
            command.args(["--listen-client-urls", &url(&clients[node])]);
            command.args(["--advertise-client-urls", &url(&clients[node])]);
            command.arg("--data-dir").arg(directory.path().join(format!("n{node}")));
            processes.push(spawn(command)?);
        }
        let endpoints = clients.iter().map(local).collect();
        Ok(Cluster { database: Database::Etcd, endpoints, processes, _directory: directory })
    }

    /// Connects to the cluster, once it takes writes.
    async fn connect(&self) -> Result<Box<dyn Target>, Failure> {
        let begin = Instant::now();
        loop {
            let last = match self.try_connect().await {
                Ok(target) => match target.put(0, "/ready".into(), "1".into()).await {
                    Ok(()) => return Ok(target),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if begin.elapsed() > START_MAX {
                return Err(format!("the cluster takes no writes: {last}").into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Returns the highest peak memory of any process, in bytes.
    pub fn peak_memory(&self) -> Result<u64, Failure> {
        let mut most = 0;
        for process in &self.processes {
            let kibibytes = account_of(process)?.status()?.vmhwm;
            most = most.max(kibibytes.ok_or("a process that ended")? * 1024);
        }
        Ok(most)
    }

    /// Returns the processor time that all processes have used so far.
    pub fn cpu(&self) -> Result<Duration, Failure> {
        let mut ticks = 0;
        for process in &self.processes {
            let stat = account_of(process)?.stat()?;
            ticks += stat.utime + stat.stime;
        }
        Ok(Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64))
    }

    async fn try_connect(&self) -> Result<Box<dyn Target>, Failure> {
        Ok(match self.database {
            Database::RangeDb => Box::new(RangeDb::connect(&self.endpoints).await?),
            Database::Etcd => Box::new(Etcd::connect(&self.endpoints).await?),
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // The process has already ended or ends now; both are fine.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn spawn(mut command: Command) -> Result<Child, Failure> {
    let name = command.get_program().to_owned();
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|e| format!("cannot start {}: {e}", name.display()).into())
}

/// Returns the operating system's record of a process.
fn account_of(process: &Child) -> Result<procfs::process::Process, Failure> {
    Ok(procfs::process::Process::new(i32::try_from(process.id())?)?)
}

/// Ports that were free a moment ago.
fn free_ports() -> Result<[u16; NODES], Failure> {
    let mut listeners = Vec::new();
    for _ in 0..NODES {
        listeners.push(TcpListener::bind("127.0.0.1:0")?);
    }
    let mut ports = [0; NODES];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

fn local(port: &u16) -> String {
    format!("127.0.0.1:{port}")
}
