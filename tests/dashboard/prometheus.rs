//! Debian's Prometheus, and a page for it to scrape.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::Value;

use crate::components::component;
use crate::process::{Process, command};
use crate::web::{Http, wait_until};

/// A Prometheus that runs.
pub(crate) struct Prometheus {
    process: Process,
    http: Http,
}

impl Prometheus {
    /// Starts it in a folder with this configuration. `None` where it is not installed.
    pub(crate) fn start(dir: &Path, config: &Value) -> Option<Self> {
        let mut prometheus = command(component("prometheus")?);
        let file = dir.join("prometheus.yml");
        fs::write(&file, config.to_string()).unwrap();
        prometheus.arg(format!("--config.file={}", file.display()));
        prometheus.arg(format!(
            "--storage.tsdb.path={}",
            dir.join("prometheus").display()
        ));
        prometheus.args(["--web.listen-address=127.0.0.1:0", "--log.format=json"]);
        let process = Process::start("prometheus", prometheus);
        let line = process.line("where it listens", |line| line.contains("Listening on"));
        let line: Value = serde_json::from_str(&line).unwrap();
        let address: SocketAddr = line["address"].as_str().unwrap().parse().unwrap();
        let http = Http::plain(address.port());
        // It listens a moment before it answers queries.
        http.wait_for(&process, "/-/ready", 200, "");
        Some(Self { process, http })
    }

    /// The series that an instant query gives, as soon as it gives any. A query that is refused
    /// fails the test at once.
    pub(crate) fn series(&self, query: &str) -> Vec<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/api/v1/query?query={encoded}");
        wait_until(&format!("series of {query}"), || {
            self.process.must_run();
            let answer = self.http.get(&path).ok()?;
            assert_eq!(answer.status, 200, "{query}: {answer:?}");
            let answer: Value = serde_json::from_str(&answer.body).unwrap();
            let series = answer["data"]["result"].as_array().unwrap().clone();
            (!series.is_empty()).then_some(series)
        })
    }
}

/// Answers everyone who asks with what is in a file then, as node_exporter does with its textfiles.
/// It ends with this process.
pub(crate) fn serve_file(file: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let asked = BufReader::new(&stream).lines().map_while(Result::ok);
            // The header's end; there is no body.
            asked.take_while(|line| !line.is_empty()).for_each(drop);
            let body = fs::read_to_string(&file).unwrap();
            // Who hangs up is not our concern.
            let _ = write!(
                stream,
                "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n{body}"
            );
        }
    });
    address
}
