//! The real Prometheus: promtool finds no fault, and a server sees what it should.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use claviger::observer::{Method, Observer};
use serde_json::Value;
use tempfile::TempDir;
use tonic::Code;

use crate::components::component;
use crate::support::{STUCK, Served, connect, get};
use crate::tls::{Identity, files_in};

#[test]
fn promtool_finds_no_fault() {
    let Some(promtool) = component("promtool") else {
        return;
    };
    let served = Served::plain();
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let scrape = get(served.address, "/metrics").body;
    check
        .stdin
        .take()
        .unwrap()
        .write_all(scrape.as_bytes())
        .unwrap();
    let output = check.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

/// A Prometheus on a port that was free; killed by its id when this ends.
struct Prometheus {
    process: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Prometheus {
    fn start(program: &Path, config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let mut process = Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .args(["--web.listen-address=127.0.0.1:0", "--log.format=json"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let (listens, address) = mpsc::channel();
        // Reads to the end, so that it never blocks on its log.
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                if line["msg"] == "Listening on" {
                    let address = line["address"].as_str().unwrap().parse().unwrap();
                    let _ = listens.send(address);
                }
            }
        });
        // Whatever happens from here on, the process ends with this.
        let mut started = Self {
            process,
            address: ([127, 0, 0, 1], 0).into(),
            _dir: dir,
        };
        started.address = address
            .recv_timeout(STUCK)
            .expect("Prometheus does not listen");
        started
    }

    /// The values of an instant query, by job.
    fn query(&self, query: &str) -> Vec<(String, String)> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/api/v1/query?query={encoded}");
        let mut stream = connect(self.address);
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let Some(results) = body["data"]["result"].as_array() else {
            return Vec::new();
        };
        let mut values: Vec<_> = results
            .iter()
            .map(|result| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                (text(&result["metric"]["job"]), text(&result["value"][1]))
            })
            .collect();
        values.sort();
        values
    }

    /// Asks until the answer is as wanted.
    fn wait_for(&self, query: &str, wanted: impl Fn(&[(String, String)]) -> bool) {
        let deadline = Instant::now() + STUCK;
        loop {
            let values = self.query(query);
            if wanted(&values) {
                return;
            }
            assert!(Instant::now() < deadline, "{query} is {values:?}");
            thread::park_timeout(Duration::from_millis(50));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn prometheus_sees_our_series_with_and_without_tls() {
    let Some(program) = component("prometheus") else {
        return;
    };
    let (identity, dir) = (Identity::new(), tempfile::tempdir().unwrap());
    let files = files_in(dir.path());
    fs::write(&files.cert_file, &identity.cert).unwrap();
    fs::write(&files.key_file, &identity.key).unwrap();
    let (plain, tls) = (Served::plain(), Served::start(Some(files.clone())));

    let config = serde_json::json!({
        "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms"},
        "scrape_configs": [
            {"job_name": "plain", "static_configs": [{"targets": [plain.address.to_string()]}]},
            {
                "job_name": "tls",
                "scheme": "https",
                "tls_config": {"ca_file": files.cert_file},
                "static_configs": [{"targets": [tls.address.to_string()]}],
            },
        ],
    });
    let prometheus = Prometheus::start(&program, &config.to_string());
    let both = |value: &str| {
        let values = ["plain", "tls"].map(|job| (job.to_owned(), value.to_owned()));
        move |seen: &[(String, String)]| seen == values
    };
    prometheus.wait_for("up", both("1"));
    prometheus.wait_for("claviger_keyring_open", both("1"));
    prometheus.wait_for(
        r#"count by (job) (claviger_key_info{state=~"primary|retired"})"#,
        both("2"),
    );
    prometheus.wait_for(r#"claviger_key_created_timestamp_seconds * on (key_id, job) claviger_key_info{state="primary"}"#, both("0"));
    prometheus.wait_for(r#"claviger_refusals_total{reason="not_open"}"#, both("1"));
    prometheus.wait_for("sum by (job) (claviger_requests_total)", both("1"));

    // What happens is seen, and the histogram is one.
    for _ in 0..100 {
        plain
            .metrics
            .request(Method::Decrypt, Code::DataLoss, Duration::from_millis(15));
    }
    let lost = r#"claviger_requests_total{method="Decrypt",code="DATA_LOSS"} > 0"#;
    let hundred = [("plain".to_owned(), "100".to_owned())];
    prometheus.wait_for(lost, |seen| seen == hundred);
    let p99 =
        r#"histogram_quantile(0.99, claviger_request_duration_seconds_bucket{method="Decrypt"})"#;
    prometheus.wait_for(p99, |seen| {
        let value = seen
            .iter()
            .find(|(job, _)| job == "plain")
            .map(|(_, value)| value.parse());
        matches!(value, Some(Ok(value)) if 0.01 < value && value <= 0.02)
    });
}
