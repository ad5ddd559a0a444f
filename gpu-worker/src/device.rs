//! The device: opened once, watched for loss, with its pipelines and bind groups.

use crate::error::OpenError;
use crate::plan::Target;
use crate::pool::{Buffer, Pool, View};
use crate::shader::{Launch, PARAM_BYTES};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

/// Bind groups kept at most, all of buffers that are still there.
const BIND_GROUPS_MAX: usize = 4096;
/// Pipelines kept at most: some thousand shaders of some kilobytes.
const PIPELINES_MAX: usize = 2048;
/// Bytes of free readback buffers at most: two results of the usual size.
const READBACKS_BYTES_MAX: u64 = 64 << 20;
/// Bytes of uniform blocks that are kept for the next task at most.
const PARAMS_BYTES_KEPT: u64 = 4 << 20;
/// Milliseconds that one dispatch may take, so that a page can draw in between.
const DISPATCH_MS_MAX: u64 = 20;
/// The same on a software adapter: no page draws with it, and each dispatch waits
/// for the slowest core of the one before.
const DISPATCH_MS_MAX_SOFTWARE: u64 = 200;
/// Operations per second that are assumed until somebody has measured.
const RATE_UNMEASURED: u64 = 10_000_000_000;

/// Which adapters may be taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// A software adapter too: slower than the CPU module, so for tests only.
    pub software: bool,
}

/// What went wrong on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No memory was left.
    OutOfMemory,
    /// The device is gone.
    Lost(String),
    /// Anything else, in the implementation's words.
    Other(String),
}

/// What has happened on the device so far; a test shows that a task is one submission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Command buffers submitted.
    pub submits: u64,
    /// Buffers mapped for reading.
    pub readbacks: u64,
    /// Dispatches recorded.
    pub dispatches: u64,
    /// Pipelines compiled.
    pub pipelines: u64,
    /// Buffers created.
    pub buffers: u64,
    /// Bytes uploaded for blobs.
    pub blob_bytes: u64,
}

/// A future of the device, waited for on one thread.
pub type Waiting<T> = Pin<Box<dyn Future<Output = T>>>;

/// What callbacks on other threads report.
#[derive(Debug, Default)]
struct Watch {
    lost: Option<String>,
    fault: Option<Fault>,
}

/// A compiled shader.
#[derive(Debug)]
pub struct Pipeline {
    raw: wgpu::ComputePipeline,
    reads: usize,
}

impl Pipeline {
    /// The pipeline itself.
    pub fn raw(&self) -> &wgpu::ComputePipeline {
        &self.raw
    }

    /// Buffers that it reads.
    pub fn reads(&self) -> usize {
        self.reads
    }
}

#[derive(Debug)]
struct Layout {
    group: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

/// Number of read buffers, and per buffer (the uniform one first) id, offset and bytes.
type BindKey = (usize, Vec<(u32, u64, u64)>);

/// An open device.
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    name: String,
    software: bool,
    lanes: bool,
    watch: Arc<Mutex<Watch>>,
    layouts: HashMap<usize, Layout>,
    pipelines: HashMap<Rc<str>, Rc<Pipeline>>,
    binds: HashMap<BindKey, wgpu::BindGroup>,
    /// Results of error scopes that nobody has looked at yet.
    checks: Vec<Waiting<Option<Fault>>>,
    pool: Pool,
    /// Buffers that can be mapped.
    readbacks: Pool,
    /// Uniform blocks of the last task; it stays, so that bind groups do too.
    params: Option<Buffer>,
    /// What the running task's buffers and all free ones may take, and what its own take.
    room: u64,
    taken: u64,
    pub(crate) counters: Counters,
    binding_bytes_max: u64,
    buffer_bytes_max: u64,
    flops_per_s: u64,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu")
            .field("name", &self.name)
            .field("software", &self.software)
            .field("counters", &self.counters)
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

fn fault(error: &wgpu::Error) -> Fault {
    match error {
        wgpu::Error::OutOfMemory { .. } => Fault::OutOfMemory,
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            Fault::Other(description.clone())
        }
    }
}

/// The fault to report of two, the earlier one first.
pub fn worse(found: Option<Fault>, next: Option<Fault>) -> Option<Fault> {
    match (&found, &next) {
        (Some(Fault::Lost(_)), _) => found,
        // Lack of memory explains the invalid buffers that follow from it.
        (None, _) | (_, Some(Fault::OutOfMemory | Fault::Lost(_))) => next,
        _ => found,
    }
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::BROWSER_WEBGPU;
    wgpu::Instance::new(descriptor)
}

async fn adapter(options: OpenOptions) -> Result<wgpu::Adapter, OpenError> {
    let request = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let found = instance().request_adapter(&request).await;
    let adapter = found.map_err(|error| OpenError::Adapter { reason: error.to_string() })?;
    if is_software(&adapter.get_info()) && !options.software {
        let reason = format!("only a software one is there ({})", name(&adapter.get_info()));
        return Err(OpenError::Adapter { reason });
    }
    Ok(adapter)
}

/// What an adapter calls itself; pages are not told.
fn name(info: &wgpu::AdapterInfo) -> String {
    if info.name.is_empty() { "WebGPU".to_owned() } else { info.name.clone() }
}

fn is_software(info: &wgpu::AdapterInfo) -> bool {
    info.device_type == wgpu::DeviceType::Cpu
}

impl Gpu {
    /// Opens the best adapter with WebGPU's default limits.
    ///
    /// # Errors
    /// [`OpenError`]: none is there, or only a software one that was not asked for.
    pub async fn open(options: OpenOptions) -> Result<Self, OpenError> {
        let adapter = adapter(options).await?;
        let info = adapter.get_info();
        let limits = wgpu::Limits::defaults();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("raven"),
            required_limits: limits.clone(),
            ..Default::default()
        };
        let opened = adapter.request_device(&descriptor).await;
        let (device, queue) =
            opened.map_err(|error| OpenError::Device { reason: error.to_string() })?;
        let watch: Arc<Mutex<Watch>> = Arc::default();
        let lost = watch.clone();
        device.set_device_lost_callback(move |reason, message| {
            let mut watch = lost.lock().unwrap_or_else(PoisonError::into_inner);
            watch.lost = Some(format!("{reason:?}: {message}"));
        });
        let uncaptured = watch.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let mut watch = uncaptured.lock().unwrap_or_else(PoisonError::into_inner);
            watch.fault.get_or_insert(fault(&error));
        }));
        Ok(Gpu {
            device,
            queue,
            name: name(&info),
            software: is_software(&info),
            lanes: is_software(&info),
            watch,
            layouts: HashMap::new(),
            pipelines: HashMap::new(),
            binds: HashMap::new(),
            checks: Vec::new(),
            pool: Pool::default(),
            readbacks: Pool::default(),
            params: None,
            room: u64::MAX,
            taken: 0,
            counters: Counters::default(),
            binding_bytes_max: limits.max_storage_buffer_binding_size,
            buffer_bytes_max: limits.max_buffer_size,
            flops_per_s: RATE_UNMEASURED,
        })
    }

    /// What the adapter calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the adapter computes on the CPU.
    pub fn is_software(&self) -> bool {
        self.software
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// The queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What plans are made for on this device.
    pub fn target(&self) -> Target {
        Target { binding_bytes_max: self.binding_bytes_max, lanes: self.lanes }
    }

    /// Chooses the shaders for lanes or for vectors, whatever the adapter is; for
    /// tests of either on one device. Graphs that are held already stay as they are.
    pub fn set_lanes(&mut self, lanes: bool) {
        self.lanes = lanes;
    }

    /// Bytes of one binding at most.
    pub fn binding_bytes_max(&self) -> u64 {
        self.binding_bytes_max
    }

    /// Bytes of one buffer at most.
    pub fn buffer_bytes_max(&self) -> u64 {
        self.buffer_bytes_max
    }

    /// Operations per second by which long launches are cut.
    pub fn flops_per_s(&self) -> u64 {
        self.flops_per_s
    }

    /// Sets the measured speed.
    pub fn set_flops_per_s(&mut self, measured: u64) {
        self.flops_per_s = measured.max(1);
    }

    /// Dispatches into which a launch is cut.
    pub fn pieces(&self, launch: &Launch) -> u32 {
        let ms_max = if self.software { DISPATCH_MS_MAX_SOFTWARE } else { DISPATCH_MS_MAX };
        let flops_max = (self.flops_per_s / 1000 * ms_max).max(1);
        let pieces = launch.flops.div_ceil(flops_max).max(1);
        u32::try_from(pieces).unwrap_or(u32::MAX).min(launch.groups.max(1))
    }

    /// Why the device is gone, if it is.
    pub fn lost(&self) -> Option<String> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner).lost.clone()
    }

    /// Runs `work` with the device's errors caught; they are looked at by
    /// whoever waits for [`Gpu::take_checks`].
    pub fn guarded<T>(&mut self, work: impl FnOnce(&mut Gpu) -> T) -> T {
        let (result, checks) = self.checked(work);
        self.checks.push(checks);
        result
    }

    /// Runs `work`; the future resolves to the error that it caused.
    pub fn checked<T>(&mut self, work: impl FnOnce(&mut Gpu) -> T) -> (T, Waiting<Option<Fault>>) {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        let device = self.device.clone();
        let scopes = [Validation, Internal, OutOfMemory].map(|kind| device.push_error_scope(kind));
        let result = work(self);
        // Scopes nest: the last one pushed is popped first.
        let checks: Vec<_> = scopes.into_iter().rev().map(|scope| scope.pop()).collect();
        let checks = Box::pin(async move {
            let mut found = None;
            for check in checks {
                found = worse(found, check.await.as_ref().map(fault));
            }
            found
        });
        (result, checks)
    }

    /// A future of the first error since the last call, lost devices first.
    pub fn take_checks(&mut self) -> Waiting<Option<Fault>> {
        let checks = std::mem::take(&mut self.checks);
        let watch = self.watch.clone();
        Box::pin(async move {
            let mut found = None;
            for check in checks {
                found = worse(found, check.await);
            }
            let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
            let lost = watch.lost.clone().map(Fault::Lost);
            lost.or(found).or_else(|| watch.fault.take())
        })
    }

    /// Forgets what an error may have spoilt, and the error: pooled buffers, what
    /// binds them, and checks that nobody has looked at.
    pub fn clear(&mut self) {
        self.binds.clear();
        self.pool.clear();
        self.readbacks.clear();
        self.params = None;
        self.checks.clear();
        self.pool.take_dropped();
    }

    /// A task begins: its buffers and all free ones may take `room` bytes together.
    pub fn begin(&mut self, room: u64) {
        (self.room, self.taken) = (room, 0);
    }

    /// A buffer from the pool, or a new one.
    pub fn take(&mut self, bytes: u64) -> Buffer {
        self.taken = self.taken.saturating_add(Pool::rounded(bytes));
        if let Some(buffer) = self.pool.take(bytes) {
            return buffer;
        }
        self.trim(self.room.saturating_sub(self.taken));
        use wgpu::BufferUsages as Usage;
        self.create(Pool::rounded(bytes), Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST)
    }

    /// A buffer for at least `bytes` that can be mapped.
    pub fn take_readback(&mut self, bytes: u64) -> Buffer {
        self.taken = self.taken.saturating_add(Pool::rounded(bytes));
        if let Some(buffer) = self.readbacks.take(bytes) {
            return buffer;
        }
        self.trim(self.room.saturating_sub(self.taken));
        use wgpu::BufferUsages as Usage;
        self.create(Pool::rounded(bytes), Usage::MAP_READ | Usage::COPY_DST)
    }

    /// Takes a buffer back that has been unmapped.
    pub fn give_readback(&mut self, buffer: Buffer) {
        self.readbacks.give(buffer);
        self.readbacks.trim(READBACKS_BYTES_MAX);
    }

    /// Bytes that a buffer of `bytes` of uniform blocks takes.
    pub fn params_bytes(bytes: u64) -> u64 {
        bytes.max(PARAM_BYTES).next_power_of_two()
    }

    /// The buffer of uniform blocks, of at least `bytes`.
    pub fn params(&mut self, bytes: u64) -> Buffer {
        if let Some(params) = self.params.as_ref().filter(|params| params.bytes() >= bytes) {
            return params.clone();
        }
        use wgpu::BufferUsages as Usage;
        let bytes = Gpu::params_bytes(bytes);
        let params = self.guarded(|gpu| gpu.create(bytes, Usage::UNIFORM | Usage::COPY_DST));
        self.params = Some(params.clone());
        params
    }

    /// Drops uniform blocks that are too large to be kept for the next task.
    pub fn give_params(&mut self) {
        self.params.take_if(|params| params.bytes() > PARAMS_BYTES_KEPT);
    }

    /// A new buffer.
    pub fn create(&mut self, bytes: u64, usage: wgpu::BufferUsages) -> Buffer {
        self.counters.buffers += 1;
        self.forget_dropped();
        let size = bytes.next_multiple_of(16).max(16);
        let descriptor =
            wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        self.pool.adopt(self.device.create_buffer(&descriptor))
    }

    /// Gives buffers back and drops free ones until they keep to `bytes_max`.
    pub fn give(&mut self, buffers: impl IntoIterator<Item = Buffer>, bytes_max: u64) {
        buffers.into_iter().for_each(|buffer| self.pool.give(buffer));
        self.trim(bytes_max);
        self.forget_dropped();
    }

    /// Drops free buffers until all of them keep to `bytes_max`.
    fn trim(&mut self, bytes_max: u64) {
        self.pool.trim(bytes_max);
        let left = bytes_max.saturating_sub(self.pool.free_bytes());
        self.readbacks.trim(left.min(READBACKS_BYTES_MAX));
    }

    /// Forgets bind groups of buffers that are gone: none will be asked for again.
    fn forget_dropped(&mut self) {
        let dropped: HashSet<u32> = self.pool.take_dropped().into_iter().collect();
        if !dropped.is_empty() {
            self.binds.retain(|(_, key), _| !key.iter().any(|(id, ..)| dropped.contains(id)));
        }
    }

    /// Bytes of all buffers on the device.
    pub fn device_bytes(&self) -> u64 {
        self.pool.held_bytes()
    }

    /// Bind groups that are kept.
    pub fn bind_groups(&self) -> usize {
        self.binds.len()
    }

    fn layout(&mut self, reads: usize) -> &Layout {
        let device = &self.device;
        self.layouts.entry(reads).or_insert_with(|| {
            let entry = |binding: usize| wgpu::BindGroupLayoutEntry {
                binding: binding as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match binding {
                        0 => wgpu::BufferBindingType::Uniform,
                        at => wgpu::BufferBindingType::Storage { read_only: at <= reads },
                    },
                    has_dynamic_offset: binding == 0,
                    min_binding_size: None,
                },
                count: None,
            };
            let entries: Vec<_> = (0..reads + 2).map(entry).collect();
            let group = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: None,
                entries: &entries,
            });
            let pipeline = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&group)],
                immediate_size: 0,
            });
            Layout { group, pipeline }
        })
    }

    /// The pipeline of a launch, compiled the first time.
    pub fn pipeline(&mut self, launch: &Launch) -> Rc<Pipeline> {
        if let Some(known) = self.pipelines.get(&launch.source) {
            return known.clone();
        }
        if self.pipelines.len() >= PIPELINES_MAX {
            self.pipelines.clear();
        }
        self.counters.pipelines += 1;
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(launch.label),
            source: wgpu::ShaderSource::Wgsl(launch.source.as_ref().into()),
        });
        let reads = launch.reads.len();
        let layout = self.layout(reads).pipeline.clone();
        let raw = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(launch.label),
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Workgroup memory is written before it is read.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        let pipeline = Rc::new(Pipeline { raw, reads });
        self.pipelines.insert(launch.source.clone(), pipeline.clone());
        pipeline
    }

    /// The bind group of the uniform block and of `views`, the written one last.
    pub fn bind(&mut self, reads: usize, params: &Buffer, views: &[View]) -> wgpu::BindGroup {
        let mut key: BindKey = (reads, vec![(params.id(), 0, PARAM_BYTES)]);
        key.1.extend(views.iter().map(|view| (view.buffer.id(), view.offset, view.bytes)));
        if let Some(known) = self.binds.get(&key) {
            return known.clone();
        }
        self.forget_dropped();
        if self.binds.len() >= BIND_GROUPS_MAX {
            self.binds.clear();
        }
        let uniform = wgpu::BufferBinding {
            buffer: params.raw(),
            offset: 0,
            size: wgpu::BufferSize::new(PARAM_BYTES),
        };
        let bindings = views.iter().map(|view| wgpu::BufferBinding {
            buffer: view.buffer.raw(),
            offset: view.offset,
            size: wgpu::BufferSize::new(view.bytes),
        });
        let entries: Vec<_> = std::iter::once(uniform)
            .chain(bindings)
            .enumerate()
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding: binding as u32,
                resource: wgpu::BindingResource::Buffer(buffer),
            })
            .collect();
        self.layout(reads);
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &self.layouts[&reads].group,
            entries: &entries,
        });
        self.binds.insert(key, group.clone());
        group
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::doors::native;

    #[test]
    fn an_unread_fault_is_gone_with_what_it_spoilt() {
        let Some(mut gpu) = native::open_for_tests() else { return };
        // A buffer that no device gives.
        let too_large = |gpu: &mut Gpu| gpu.create(1 << 40, wgpu::BufferUsages::STORAGE);
        let _ = gpu.guarded(too_large);
        let checks = gpu.take_checks();
        assert!(matches!(native::block_on(&gpu, checks), Some(Some(_))));
        let _ = gpu.guarded(too_large);
        gpu.clear();
        let checks = gpu.take_checks();
        assert_eq!(native::block_on(&gpu, checks), Some(None));
    }
}
