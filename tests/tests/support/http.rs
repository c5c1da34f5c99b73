//! Requests to a node's status address.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Answer {
    pub code: u16,
    pub body: String,
}

/// Sends `GET path`. Fails if nobody answers.
pub async fn get(address: &str, path: &str) -> Result<Answer, String> {
    fetch(address, path).await.map_err(|error| format!("GET {path} of {address}: {error}"))
}

async fn fetch(address: &str, path: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP 1.0: the answer ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let broken = || std::io::Error::other(format!("no HTTP answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(broken)?;
    Ok(Answer { code, body: body.to_owned() })
}

/// Returns the samples of `/metrics` by their name with labels, as they are printed.
///
/// # Panics
/// If a line is not in the text format.
pub fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        let well_formed = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.contains('{') == name.ends_with('}');
        assert!(well_formed, "no name of a metric: {line}");
        assert!(samples.insert(name.to_owned(), value).is_none(), "twice: {line}");
    }
    samples
}

/// Returns the sum of a metric's samples, whatever their labels.
pub fn sum(samples: &BTreeMap<String, f64>, metric: &str) -> f64 {
    let of_metric = |name: &str| name.split('{').next() == Some(metric);
    samples.iter().filter(|(name, _)| of_metric(name)).map(|(_, value)| value).sum()
}
