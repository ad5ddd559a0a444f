//! The kernel module under wasmtime: the file that visitors run, by its host door.

use raven_protocol::{Frame, FrameError, FrameLimits, KernelId};
use std::path::{Path, PathBuf};
use wasmtime::{
    Config, Engine, Instance, Linker, Memory, Module, OptLevel, Store, StoreLimits,
    StoreLimitsBuilder, TypedFunc,
};

/// Bytes of linear memory beyond the kernel's declared budget: its code's
/// statics, its stack, input frames and the allocator's slack.
const OVERHEAD_BYTES: u64 = 768 << 20;
/// A module's linear memory has 32-bit addresses; the last page stays unused.
const MEMORY_BYTES_MAX: u64 = (1 << 32) - (64 << 10);

/// Why the kernel did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The module's file cannot be read.
    #[error("kernel file {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    /// The file is not the module that this coordinator knows how to drive.
    #[error("kernel module: {reason}")]
    Module { reason: String },
    /// The instance trapped; it is of no further use.
    #[error("kernel trapped in {call}: {reason}")]
    Trapped { call: &'static str, reason: String },
    /// The instance has no memory left for an input.
    #[error("kernel has no memory for a frame of {bytes} bytes")]
    OutOfMemory { bytes: usize },
    /// The kernel looked at a frame and refused it.
    #[error("kernel refused {call}: {reason}")]
    Refused { call: &'static str, reason: String },
    /// The kernel's reply is not what its interface promises.
    #[error("kernel reply to {call}: {reason}")]
    Reply { call: &'static str, reason: String },
}

impl KernelError {
    /// Whether the instance must be thrown away.
    pub fn is_fatal(&self) -> bool {
        matches!(self, KernelError::Trapped { .. } | KernelError::OutOfMemory { .. })
    }
}

/// The compiled module, shared by all instances.
#[derive(Clone)]
pub struct KernelModule {
    engine: Engine,
    module: Module,
    id: KernelId,
}

impl std::fmt::Debug for KernelModule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelModule").field("id", &self.id).finish_non_exhaustive()
    }
}

impl KernelModule {
    /// Reads and compiles the module; `cache_dir` keeps the compiled form, named
    /// by the module's content, so that the next start takes milliseconds.
    ///
    /// # Errors
    /// [`KernelError::File`] and [`KernelError::Module`].
    pub fn load(file: &Path, cache_dir: Option<&Path>) -> Result<Self, KernelError> {
        let bytes = std::fs::read(file)
            .map_err(|source| KernelError::File { path: file.to_owned(), source })?;
        let id = KernelId(*blake3::hash(&bytes).as_bytes());
        let engine = Engine::new(&config()).map_err(module_error)?;
        let cached = cache_dir.map(|dir| dir.join(format!("kernel-{id}-{}.cwasm", stamp(&engine))));
        if let Some(module) = cached.as_deref().and_then(|path| load_cached(&engine, path)) {
            return Ok(KernelModule { engine, module, id });
        }
        let module = Module::new(&engine, &bytes).map_err(module_error)?;
        if let Some(path) = cached
            && let Err(error) = store_cached(&module, &path)
        {
            tracing::warn!(path = %path.display(), %error, "the compiled kernel was not cached");
        }
        Ok(KernelModule { engine, module, id })
    }

    /// blake3 of the module's file.
    pub fn id(&self) -> KernelId {
        self.id
    }
}

/// Deterministic features only: relaxed SIMD may differ between processors.
fn config() -> Config {
    let mut config = Config::new();
    config.wasm_relaxed_simd(false);
    config.wasm_simd(true);
    config.wasm_reference_types(true);
    config.cranelift_opt_level(OptLevel::Speed);
    config
}

fn module_error(error: wasmtime::Error) -> KernelError {
    KernelError::Module { reason: format!("{error:#}") }
}

/// Compiled code is only good for the wasmtime and settings that made it.
fn stamp(engine: &Engine) -> String {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn load_cached(engine: &Engine, path: &Path) -> Option<Module> {
    if !path.is_file() {
        return None;
    }
    // SAFETY: the file lies in the coordinator's own data folder, which only its
    // operator can write; a file of another wasmtime build is refused by its header.
    match unsafe { Module::deserialize_file(engine, path) } {
        Ok(module) => Some(module),
        Err(error) => {
            tracing::warn!(path = %path.display(), error = %format!("{error:#}"), "cached kernel ignored");
            None
        }
    }
}

fn store_cached(module: &Module, path: &Path) -> std::io::Result<()> {
    let bytes = module.serialize().map_err(|error| std::io::Error::other(error.to_string()))?;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    // Renamed into place, so that neither a crash nor a second writer leaves
    // half a file under the name.
    let partial = path.with_extension(format!("{:016x}.part", crate::random::nonzero_u64()));
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, path)
}

struct Exports {
    memory: Memory,
    alloc: TypedFunc<i32, i32>,
    free: TypedFunc<(i32, i32), ()>,
    accept: TypedFunc<(i32, i32, i32), i64>,
    missing: TypedFunc<(i32, i32, i32), i64>,
    execute: TypedFunc<(i32, i32, i32), i64>,
    begin: TypedFunc<(i32, i32, i32), i64>,
    step: TypedFunc<(i32, f64), i32>,
    finish: TypedFunc<(i32, i64), i64>,
    error: TypedFunc<i32, i64>,
}

/// One running kernel: its own memory, graphs and blobs.
pub struct Kernel {
    store: Store<StoreLimits>,
    exports: Exports,
    handle: i32,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Kernel {
    /// An instance that may hold `memory_bytes` of graphs, blobs and values.
    ///
    /// # Errors
    /// [`KernelError::Module`] where the module lacks an export.
    pub fn new(module: &KernelModule, memory_bytes: u64) -> Result<Self, KernelError> {
        let memory_max = memory_bytes.saturating_add(OVERHEAD_BYTES).min(MEMORY_BYTES_MAX);
        let limits = StoreLimitsBuilder::new()
            .memory_size(usize::try_from(memory_max).unwrap_or(usize::MAX))
            .memories(1)
            .instances(1)
            .build();
        let mut store = Store::new(&module.engine, limits);
        store.limiter(|limits| limits);
        let mut linker = Linker::new(&module.engine);
        // The host door never reaches an import of the browser door.
        linker.define_unknown_imports_as_traps(&module.module).map_err(module_error)?;
        let instance = linker.instantiate(&mut store, &module.module).map_err(module_error)?;
        let exports = Exports::of(&instance, &mut store)?;
        let new = instance
            .get_typed_func::<i64, i32>(&mut store, "raven_kernel_new")
            .map_err(module_error)?;
        let budget = i64::try_from(memory_bytes).unwrap_or(i64::MAX);
        let handle = new.call(&mut store, budget).map_err(trapped("raven_kernel_new"))?;
        Ok(Kernel { store, exports, handle })
    }

    /// Hands over a graph, blob, drop, cancel or reveal frame.
    ///
    /// # Errors
    /// [`KernelError`]; see [`KernelError::is_fatal`].
    pub fn accept(&mut self, frame: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        let call = self.exports.accept.clone();
        self.with_frame("accept", frame, call)
    }

    /// Ids of the blobs that a task names and that this instance does not hold.
    ///
    /// # Errors
    /// As [`Kernel::accept`].
    pub fn missing(&mut self, frame: &[u8]) -> Result<Vec<String>, KernelError> {
        let call = self.exports.missing.clone();
        let Some(bytes) = self.with_frame("missing", frame, call)? else { return Ok(Vec::new()) };
        let text = String::from_utf8(bytes)
            .map_err(|error| KernelError::Reply { call: "missing", reason: error.to_string() })?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Runs a task frame to its end; the reply is a `result` or `refuse` frame.
    ///
    /// # Errors
    /// As [`Kernel::accept`].
    pub fn execute(&mut self, frame: &[u8]) -> Result<Vec<u8>, KernelError> {
        let call = self.exports.execute.clone();
        self.with_frame("execute", frame, call)?
            .ok_or(KernelError::Reply { call: "execute", reason: "no frame".to_owned() })
    }

    /// Starts a task; `Some` is a `refuse` frame.
    ///
    /// # Errors
    /// As [`Kernel::accept`].
    pub fn begin(&mut self, frame: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        let call = self.exports.begin.clone();
        self.with_frame("begin", frame, call)
    }

    /// Runs whole ops of the started task until `flops` are done; true at its end.
    ///
    /// # Errors
    /// As [`Kernel::accept`].
    pub fn step(&mut self, flops: f64) -> Result<bool, KernelError> {
        let done = self.exports.step.call(&mut self.store, (self.handle, flops));
        match done.map_err(trapped("step"))? {
            -1 => Err(KernelError::Refused { call: "step", reason: self.last_error()? }),
            done => Ok(done != 0),
        }
    }

    /// The `commit` or `refuse` frame of the finished task.
    ///
    /// # Errors
    /// As [`Kernel::accept`].
    pub fn finish(&mut self, elapsed_ms: u64) -> Result<Vec<u8>, KernelError> {
        let elapsed = i64::try_from(elapsed_ms).unwrap_or(i64::MAX);
        let reply = self.exports.finish.call(&mut self.store, (self.handle, elapsed));
        let reply = reply.map_err(trapped("finish"))?;
        self.reply("finish", reply)?
            .ok_or(KernelError::Reply { call: "finish", reason: "no frame".to_owned() })
    }

    fn with_frame(
        &mut self,
        call: &'static str,
        frame: &[u8],
        function: TypedFunc<(i32, i32, i32), i64>,
    ) -> Result<Option<Vec<u8>>, KernelError> {
        let bytes = frame.len();
        // Wasm addresses are unsigned; as i32 the upper half of the memory is negative.
        let length = u32::try_from(bytes).map_err(|_| KernelError::OutOfMemory { bytes })? as i32;
        let alloc = self.exports.alloc.call(&mut self.store, length);
        let at = alloc.map_err(trapped("raven_alloc"))?;
        if at == 0 {
            return Err(KernelError::OutOfMemory { bytes });
        }
        self.exports
            .memory
            .write(&mut self.store, at as u32 as usize, frame)
            .map_err(|_| KernelError::OutOfMemory { bytes })?;
        let reply = function.call(&mut self.store, (self.handle, at, length));
        let reply = reply.map_err(trapped(call))?;
        let freed = self.exports.free.call(&mut self.store, (at, length));
        freed.map_err(trapped("raven_free"))?;
        self.reply(call, reply)
    }

    fn reply(&mut self, call: &'static str, packed: i64) -> Result<Option<Vec<u8>>, KernelError> {
        match packed {
            0 => Ok(None),
            -1 => Err(KernelError::Refused { call, reason: self.last_error()? }),
            packed => self.take(call, packed).map(Some),
        }
    }

    /// Copies a packed buffer out and gives it back.
    fn take(&mut self, call: &'static str, packed: i64) -> Result<Vec<u8>, KernelError> {
        let (at, length) = (packed as u32, (packed >> 32) as u32);
        let range = at as usize..at as usize + length as usize;
        let memory = self.exports.memory.data(&self.store);
        let bytes = memory.get(range).map(<[u8]>::to_vec).ok_or(KernelError::Reply {
            call,
            reason: format!("{length} bytes at {at} lie outside of its memory"),
        })?;
        let freed = self.exports.free.call(&mut self.store, (at as i32, length as i32));
        freed.map_err(trapped("raven_free"))?;
        Ok(bytes)
    }

    fn last_error(&mut self) -> Result<String, KernelError> {
        let packed = self.exports.error.call(&mut self.store, self.handle);
        let packed = packed.map_err(trapped("raven_error"))?;
        if packed == 0 || packed == -1 {
            return Ok("no reason given".to_owned());
        }
        let text = self.take("raven_error", packed)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Exports {
    fn of(instance: &Instance, store: &mut Store<StoreLimits>) -> Result<Self, KernelError> {
        let memory = instance
            .get_memory(&mut *store, "memory")
            .ok_or(KernelError::Module { reason: "no export \"memory\"".to_owned() })?;
        Ok(Exports {
            memory,
            alloc: export(instance, store, "raven_alloc")?,
            free: export(instance, store, "raven_free")?,
            accept: export(instance, store, "raven_accept")?,
            missing: export(instance, store, "raven_missing")?,
            execute: export(instance, store, "raven_execute")?,
            begin: export(instance, store, "raven_begin")?,
            step: export(instance, store, "raven_step")?,
            finish: export(instance, store, "raven_finish")?,
            error: export(instance, store, "raven_error")?,
        })
    }
}

fn export<P: wasmtime::WasmParams, R: wasmtime::WasmResults>(
    instance: &Instance,
    store: &mut Store<StoreLimits>,
    name: &'static str,
) -> Result<TypedFunc<P, R>, KernelError> {
    instance
        .get_typed_func(store, name)
        .map_err(|error| KernelError::Module { reason: format!("export {name:?}: {error:#}") })
}

fn trapped(call: &'static str) -> impl Fn(wasmtime::Error) -> KernelError {
    move |error| KernelError::Trapped { call, reason: format!("{error:#}") }
}

/// Reads a frame that the kernel made.
///
/// # Errors
/// [`FrameError`], which would be a fault of the kernel.
pub fn read_frame(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    // The kernel's own results are bounded by what may be sent to it again.
    Frame::decode(bytes, &FrameLimits::TO_CONTRIBUTOR)
}
