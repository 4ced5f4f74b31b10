// The subgroups that a device makes of a workgroup: y[2 i] is the size of thread i's subgroup, y[2 i + 1] their number.

@group(0) @binding(0) var<storage, read_write> y: array<u32>;

#import threads

@compute @workgroup_size(WG)
fn main(thread: Thread, @builtin(subgroup_size) size: u32) {
  y[2u * thread.index] = size;
  y[2u * thread.index + 1u] = thread.subgroups;
}
