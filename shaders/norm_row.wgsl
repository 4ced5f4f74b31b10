// The values of a row that a thread has, zeros past its end: all are asked for at once.

fn own_values(source: u32, thread: Thread) -> array<f32, TRIPS> {
  var own: array<f32, TRIPS>;
  for (var j = 0u; j < TRIPS; j++) {
    let i = thread.index + j * WG;
    own[j] = select(0.0, x[source + min(i, params.n - 1u)], i < params.n);
  }
  return own;
}
