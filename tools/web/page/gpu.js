// What browsers and wgpu do not agree on yet.

/**
 * Sees to it that devices get `subgroups` where the adapter has them (wgpu does not know the feature on the web), and never get
 * a feature named in `off`. Gives the range of subgroup sizes, or undefined.
 */
export async function prepareGpu(off = []) {
  const gpu = self.navigator.gpu;
  if (!gpu) return undefined;
  const proto = GPUAdapter.prototype;
  const original = (proto.requestDeviceAsIs ??= proto.requestDevice);
  const adapter = await gpu.requestAdapter();
  const info = adapter?.info ?? {};
  // Sizes are part of the adapter's description; without them kernels cannot be chosen.
  const sizes = info.subgroupMinSize && info.subgroupMaxSize ? [info.subgroupMinSize, info.subgroupMaxSize] : undefined;
  const use = !off.includes("subgroups") && adapter?.features.has("subgroups") && sizes;
  proto.requestDevice = function (descriptor = {}) {
    const features = new Set(descriptor.requiredFeatures ?? []);
    if (use && this.features.has("subgroups")) features.add("subgroups");
    off.forEach((feature) => features.delete(feature));
    return original.call(this, { ...descriptor, requiredFeatures: [...features] });
  };
  return use ? sizes : undefined;
}
