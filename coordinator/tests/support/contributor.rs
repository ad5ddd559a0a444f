//! A contributor that really computes: the kernel module under wasmtime, behind
//! a blocking socket, as one worker of a browser would.

use super::socket::{consent, hello, receipt};
use super::{SITE_KEY, cache_dir, kernel_file};
use ed25519_dalek::SigningKey;
use raven_coordinator::runtime::executor::{Kernel, KernelModule};
use raven_graph::{DType, TensorType};
use raven_proof::projection::{project_bytes, to_bytes};
use raven_protocol::frame::encode;
use raven_protocol::{
    Backend, DeviceClass, Earnings, Encoding, Frame, FrameLimits, FromContributor, GoodbyeReason,
    Hello, JobCategory, Keeps, KernelId, LeaseId, LeaseOutcome, NumericClass, Seed, TaskId,
    TensorPart, TensorView, ToContributor, result_digest,
};
use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client};

const MEMORY_BYTES: u64 = 256 << 20;
/// Flops between two looks at the socket.
const STEP_FLOPS: f64 = 50e6;

/// Printed when an upload is broken off.
pub const CUT_WORDS: &str = "broke off an upload";
/// Between two tries to come back.
const RETURN: Duration = Duration::from_millis(50);

/// What a contributor does beside computing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// Sleeps before each commitment.
    pub slow: Duration,
    /// Drops the socket after so many commitments, without a word.
    pub dies_after: Option<u64>,
    /// Comes back under the same key whenever the connection is gone, until it is stopped.
    pub returns: bool,
    /// Breaks the connection in the middle of the payload that follows so many commitments.
    pub cuts_upload_after: Option<u64>,
    /// Says that it may move so many bytes.
    pub traffic: Option<u64>,
    /// Whether it says that its key stays, and whose its earnings are to be.
    pub keeps: Keeps,
    pub earnings: Earnings,
    /// Says that it is one of this class; a server where it says nothing.
    pub device: Option<DeviceClass>,
    /// Says that it is a GPU; `poison` is what makes its results differ.
    pub gpu: bool,
    /// Multiplies the gradients of runs that begin below a micro-batch, or parts below a
    /// number, by a factor, and commits to that.
    pub poison: Option<Poison>,
}

/// The module that those who say so run.
pub const GPU_KERNEL: KernelId = KernelId([0x67; 32]);

/// What a contributor makes of its results.
#[derive(Clone, Copy, Debug)]
pub struct Poison {
    pub below: u32,
    pub factor: f32,
    /// Commitments that it makes honestly first.
    pub after: u64,
}

/// A running contributor.
pub struct Contributor {
    stop: Arc<AtomicBool>,
    commits: Arc<AtomicU64>,
    moved: Arc<AtomicU64>,
    goodbye: Arc<Mutex<Option<GoodbyeReason>>>,
    tasks: Arc<Mutex<Vec<TaskId>>>,
    outcomes: Arc<Mutex<Vec<LeaseOutcome>>>,
    about: Arc<Mutex<Vec<(String, JobCategory)>>>,
    thread: Option<JoinHandle<()>>,
}

impl Contributor {
    pub fn start(address: SocketAddr, number: u8, habits: Habits) -> Self {
        Self::start_through(address, number, habits, None)
    }

    /// One that comes with a site's ticket and consents to that site.
    pub fn start_through(
        address: SocketAddr,
        number: u8,
        habits: Habits,
        ticket: Option<String>,
    ) -> Self {
        let (stop, commits) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let tasks = Arc::<Mutex<Vec<TaskId>>>::default();
        let (moved, goodbye) = (Arc::<AtomicU64>::default(), Arc::<Mutex<_>>::default());
        let outcomes = Arc::<Mutex<Vec<LeaseOutcome>>>::default();
        let about = Arc::<Mutex<Vec<(String, JobCategory)>>>::default();
        let mut worker = Worker {
            address,
            number,
            habits,
            ticket,
            stop: stop.clone(),
            commits: commits.clone(),
            moved: moved.clone(),
            goodbye: goodbye.clone(),
            tasks: tasks.clone(),
            outcomes: outcomes.clone(),
            about: about.clone(),
            poisoned: HashMap::new(),
        };
        let thread = std::thread::spawn(move || worker.run());
        let thread = Some(thread);
        Contributor { stop, commits, moved, goodbye, tasks, outcomes, about, thread }
    }

    /// Bytes of frames since its hello, both ways, and of shards.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Why the coordinator took leave of it.
    pub fn goodbye(&self) -> Option<GoodbyeReason> {
        *self.goodbye.lock().expect("nobody panics")
    }

    /// Every task that it was sent.
    pub fn tasks(&self) -> Vec<TaskId> {
        self.tasks.lock().expect("nobody panics").clone()
    }

    /// What it was told of its results.
    pub fn outcomes(&self) -> Vec<LeaseOutcome> {
        self.outcomes.lock().expect("nobody panics").clone()
    }

    /// For whom it was told that it computes, in the order in which it was told.
    pub fn about(&self) -> Vec<(String, JobCategory)> {
        self.about.lock().expect("nobody panics").clone()
    }

    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub fn is_gone(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Cuts the connection; answers how many tasks it had committed.
    pub fn kill(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the contributor ended well");
        }
        self.commits()
    }
}

impl Drop for Contributor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Worker {
    address: SocketAddr,
    number: u8,
    habits: Habits,
    ticket: Option<String>,
    stop: Arc<AtomicBool>,
    commits: Arc<AtomicU64>,
    moved: Arc<AtomicU64>,
    goodbye: Arc<Mutex<Option<GoodbyeReason>>>,
    tasks: Arc<Mutex<Vec<TaskId>>>,
    outcomes: Arc<Mutex<Vec<LeaseOutcome>>>,
    about: Arc<Mutex<Vec<(String, JobCategory)>>>,
    /// Results that are not what was computed, until they are asked for.
    poisoned: HashMap<LeaseId, Vec<u8>>,
}

type Socket = WebSocket<TcpStream>;

impl Worker {
    fn run(&mut self) {
        let module = KernelModule::load(&kernel_file(), Some(&cache_dir())).expect("the kernel");
        loop {
            match self.connect() {
                Some(socket) => self.session(&module, socket),
                // Whoever does not come back was not meant to be refused either.
                None => assert!(self.habits.returns, "connects"),
            }
            if !self.habits.returns || self.stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(RETURN);
        }
    }

    fn connect(&self) -> Option<Socket> {
        let stream = TcpStream::connect(self.address).ok()?;
        stream.set_nodelay(true).ok()?;
        // A coordinator that is killed between accepting and answering answers never.
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let url = format!("ws://{}/v1/contribute", self.address);
        let (socket, _) = client(url, stream).ok()?;
        let timeout = Some(Duration::from_millis(50));
        socket.get_ref().set_read_timeout(timeout).ok()?;
        Some(socket)
    }

    fn session(&mut self, module: &KernelModule, mut socket: Socket) {
        let mut kernel = Kernel::new(module, MEMORY_BYTES).expect("an instance");
        let key = SigningKey::from_bytes(&[self.number; 32]);
        let numeric = match self.habits.gpu {
            true => NumericClass::Gpu { kernel: GPU_KERNEL },
            false => NumericClass::Cpu { kernel: module.id() },
        };
        let traffic_bytes_left = self.habits.traffic;
        let Habits { keeps, earnings, .. } = self.habits;
        let hello = hello(&key, module.id());
        let ticket = self.ticket.clone();
        let mut hello = Hello { traffic_bytes_left, numeric, keeps, earnings, ticket, ..hello };
        hello.device.class = self.habits.device.unwrap_or(hello.device.class);
        send(&mut socket, &FromContributor::Hello(hello.clone()));
        let mut grant = String::new();
        while let Some(bytes) = self.read(&mut socket) {
            match message(&bytes) {
                ToContributor::Welcome { nonce, consent_text_version, .. } => {
                    let site = self.ticket.as_ref().map(|_| SITE_KEY);
                    let mut receipt = receipt(&hello, &nonce, site);
                    receipt.text_version = consent_text_version;
                    receipt.gpu = self.habits.gpu;
                    self.write(&mut socket, encode(&consent(&receipt, &key), &[]));
                }
                ToContributor::Ready { grant: token } => grant = token,
                ToContributor::About { requester, category } => {
                    self.about.lock().expect("nobody panics").push((requester, category));
                }
                ToContributor::Outcomes { results } => {
                    self.outcomes.lock().expect("nobody panics").extend(results);
                }
                ToContributor::Task(task) => {
                    self.tasks.lock().expect("nobody panics").push(task.task);
                    if !self.task(&mut kernel, &mut socket, &bytes, &grant, task.task) {
                        return;
                    }
                }
                ToContributor::Goodbye { reason, .. } => {
                    *self.goodbye.lock().expect("nobody panics") = Some(reason);
                    return;
                }
                message => {
                    let is_reveal = matches!(message, ToContributor::Reveal { .. });
                    let poisoned = match message {
                        ToContributor::Reveal { lease } => self.poisoned.remove(&lease),
                        ToContributor::Project { lease, key, probes } => {
                            self.poisoned.get(&lease).map(|it| projected(lease, it, key, probes))
                        }
                        _ => None,
                    };
                    let reply = poisoned.or_else(|| kernel.accept(&bytes).expect("a good frame"));
                    let Some(reply) = reply else { continue };
                    if is_reveal && self.cuts_this_upload() {
                        half_written(&mut socket, &reply);
                        return;
                    }
                    self.write(&mut socket, reply);
                }
            }
        }
    }

    /// Runs one task; false when it is time to go.
    fn task(
        &mut self,
        kernel: &mut Kernel,
        socket: &mut Socket,
        frame: &[u8],
        grant: &str,
        task: TaskId,
    ) -> bool {
        for blob in kernel.missing(frame).expect("a good frame") {
            let Some(body) = fetch(self.address, &blob, grant) else {
                assert!(self.habits.returns, "the shard is granted");
                return false;
            };
            self.moved.fetch_add(body.len() as u64, Ordering::Relaxed);
            kernel.accept(&body).expect("a good shard");
        }
        let began = Instant::now();
        if let Some(refusal) = kernel.begin(frame).expect("a good frame") {
            self.write(socket, refusal);
            return true;
        }
        while !kernel.step(STEP_FLOPS).expect("steps") {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
        }
        std::thread::sleep(self.habits.slow);
        let elapsed_ms = began.elapsed().as_millis() as u64;
        let mut commit = kernel.finish(elapsed_ms).expect("finishes");
        let poison = self.habits.poison.filter(|poison| task.part < poison.below);
        if let Some(poison) = poison.filter(|poison| self.commits() >= poison.after) {
            commit = self.poison(kernel, &commit, task, poison.factor);
        }
        self.write(socket, commit);
        let commits = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        self.habits.dies_after.is_none_or(|limit| commits < limit)
    }

    /// Spoils the gradients of a finished task; answers the commitment to that.
    fn poison(&mut self, kernel: &mut Kernel, commit: &[u8], task: TaskId, by: f32) -> Vec<u8> {
        let commit = Frame::decode(commit, &FrameLimits::TO_COORDINATOR).expect("a frame");
        let commit = FromContributor::from_header(commit.header()).expect("a message");
        let FromContributor::Commit { lease, elapsed_ms, backend, .. } = commit else {
            panic!("{commit:?} is no commitment")
        };
        let backend = if self.habits.gpu { Backend::Gpu } else { backend };
        let reveal = encode(&ToContributor::Reveal { lease }, &[]);
        let result = kernel.accept(&reveal).expect("a good frame").expect("a result");
        let result = Frame::decode(&result, &FrameLimits::TO_COORDINATOR).expect("a frame");
        let tensors: Vec<(String, TensorType, Vec<u8>)> = result
            .tensors()
            .map(|tensor| {
                let is_poisoned = tensor.name.starts_with("grad.") || tensor.name == "part";
                let factor = if is_poisoned { by } else { 1.0 };
                let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four"));
                let numbers = tensor.data.chunks_exact(4).map(number);
                let data = numbers.flat_map(|x| (x * factor).to_le_bytes()).collect();
                (tensor.name.to_owned(), tensor.ty(), data)
            })
            .collect();
        let views = tensors.iter().map(|(name, ty, data)| {
            (Encoding::Raw, TensorView { name, dtype: ty.dtype, shape: &ty.shape, data })
        });
        let digest = result_digest(task, views);
        let parts: Vec<TensorPart<'_>> = tensors
            .iter()
            .map(|(name, ty, data)| TensorPart { name: name.clone(), ty: ty.clone(), data })
            .collect();
        self.poisoned.insert(lease, encode(&FromContributor::Result { lease }, &parts));
        encode(&FromContributor::Commit { lease, digest, elapsed_ms, backend }, &[])
    }

    /// Whether the payload that was just asked for breaks off; it does so once.
    fn cuts_this_upload(&mut self) -> bool {
        let commits = self.commits();
        let cuts = self.habits.cuts_upload_after.is_some_and(|limit| commits >= limit);
        if cuts {
            self.habits.cuts_upload_after = None;
        }
        cuts
    }

    fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    fn write(&self, socket: &mut Socket, frame: Vec<u8>) {
        self.moved.fetch_add(frame.len() as u64, Ordering::Relaxed);
        write(socket, frame);
    }

    fn read(&self, socket: &mut Socket) -> Option<Vec<u8>> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            match socket.read() {
                Ok(Message::Binary(bytes)) => {
                    self.moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    return Some(bytes.to_vec());
                }
                Ok(Message::Close(_)) => return None,
                Ok(_) => {}
                Err(Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return None,
            }
        }
    }
}

fn message(bytes: &[u8]) -> ToContributor {
    let frame = Frame::decode(bytes, &FrameLimits::TO_CONTRIBUTOR).expect("a frame");
    ToContributor::from_header(frame.header()).expect("a message")
}

/// Projections of a result.
fn projected(lease: LeaseId, result: &[u8], key: Seed, probes: u32) -> Vec<u8> {
    let result = Frame::decode(result, &FrameLimits::TO_COORDINATOR).expect("a frame");
    let written: Vec<(String, Vec<u8>)> = (0..)
        .zip(result.tensors())
        .map(|(number, tensor)| {
            let found = project_bytes(key.0, number, probes, tensor.dtype, tensor.data);
            (tensor.name.to_owned(), to_bytes(&found.expect("whole elements")))
        })
        .collect();
    let ty = TensorType::new(DType::U8, [probes, 8]);
    let part = |(name, data)| TensorPart { name: Clone::clone(name), ty: ty.clone(), data };
    let parts: Vec<TensorPart<'_>> =
        written.iter().map(|(name, data)| part((name, data.as_slice()))).collect();
    encode(&FromContributor::Projected { lease }, &parts)
}

fn send(socket: &mut Socket, message: &FromContributor) {
    write(socket, encode(message, &[]));
}

fn write(socket: &mut Socket, frame: Vec<u8>) {
    // A coordinator that is gone is noticed by the next read.
    let _ = socket.send(Message::Binary(frame.into()));
}

/// Announces a whole message, sends half of it, and is gone.
fn half_written(socket: &mut Socket, frame: &[u8]) {
    // A binary message of one frame with a 64-bit length and a mask of zeros.
    let mut head = vec![0x82, 0x80 | 127];
    head.extend_from_slice(&(frame.len() as u64).to_be_bytes());
    head.extend_from_slice(&[0; 4]);
    let stream = socket.get_mut();
    let _ = stream.write_all(&head).and_then(|()| stream.write_all(&frame[..frame.len() / 2]));
    let _ = stream.shutdown(std::net::Shutdown::Both);
    println!("{CUT_WORDS}");
}

fn fetch(address: SocketAddr, blob: &str, grant: &str) -> Option<Vec<u8>> {
    let mut response = ureq::get(format!("http://{address}/v1/blobs/{blob}"))
        .header("authorization", &format!("Bearer {grant}"))
        .call()
        .ok()?;
    response.body_mut().with_config().limit(256 << 20).read_to_vec().ok()
}
