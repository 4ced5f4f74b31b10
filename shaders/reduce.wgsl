// Sums and maxima over a workgroup of WG threads; every thread gets the result. WG is a power of two.
// All threads of the workgroup must call these together.

#import threads

// Subgroups may be as small as four threads.
var<workgroup> reduce_parts: array<f32, WG>;

#if SUBGROUPS
fn reduce_add(value: f32, thread: Thread) -> f32 {
  let part = subgroupAdd(value);
  workgroupBarrier(); // the parts of an earlier call have been read
  if (thread.lane == 0u) {
    reduce_parts[thread.subgroup] = part;
  }
  workgroupBarrier();
  var sum = 0.0;
  for (var i = 0u; i < thread.subgroups; i++) {
    sum += reduce_parts[i];
  }
  return sum;
}

fn reduce_max(value: f32, thread: Thread) -> f32 {
  let part = subgroupMax(value);
  workgroupBarrier();
  if (thread.lane == 0u) {
    reduce_parts[thread.subgroup] = part;
  }
  workgroupBarrier();
  var best = reduce_parts[0];
  for (var i = 1u; i < thread.subgroups; i++) {
    best = max(best, reduce_parts[i]);
  }
  return best;
}
#else
fn reduce_add(value: f32, thread: Thread) -> f32 {
  workgroupBarrier(); // the parts of an earlier call have been read
  reduce_parts[thread.index] = value;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (thread.index < half) {
      reduce_parts[thread.index] += reduce_parts[thread.index + half];
    }
    workgroupBarrier();
  }
  return reduce_parts[0];
}

fn reduce_max(value: f32, thread: Thread) -> f32 {
  workgroupBarrier();
  reduce_parts[thread.index] = value;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (thread.index < half) {
      reduce_parts[thread.index] = max(reduce_parts[thread.index], reduce_parts[thread.index + half]);
    }
    workgroupBarrier();
  }
  return reduce_parts[0];
}
#end
