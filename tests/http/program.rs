//! The real program behind a socket, in a folder of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// `aldis serve` on a free port. It ends with this.
pub struct Program {
    pub address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Program {
    /// With these arguments more; it listens once this returns.
    pub fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut program = Command::new(env!("CARGO_BIN_EXE_aldis"));
        program.args(["serve", "--json", "--listen", "127.0.0.1:0"]).args(more);
        program.current_dir(folder.path()).env("ALDIS_LOG", "off").env_remove("ALDIS_STORE").stdout(Stdio::piped());
        let mut child = program.spawn().expect("the program");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let ready: Value = serde_json::from_str(&line).expect("where it listens");
        let address = ready["address"].as_str().expect("an address").parse().expect("an address");
        Self { address, child, _folder: folder }
    }

    /// One request by hand, and the JSON that is answered.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let (body, mut answer) = (body.to_string(), String::new());
        let mut socket = TcpStream::connect(self.address).expect("a connection");
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        socket.write_all((head + &body).as_bytes()).expect("it is sent");
        socket.read_to_string(&mut answer).expect("an answer");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"))
    }

    /// Resident memory, as the system counts it.
    #[cfg(target_os = "linux")]
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kilobytes * 1024
    }

    /// Whether it is still there.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
