// Moving elements between consecutive memory and an array seen with strides: broadcasts, transposes, slices.

#include <algorithm>
#include <cstring>

#include "engine.h"

namespace {

template <typename T, bool kLoad>
void run(uint8_t* array, int64_t stride, int64_t n, uint8_t* flat_) {
  T* flat = (T*)flat_;
  if (stride == (int64_t)sizeof(T)) {
    kLoad ? std::memcpy(flat, array, n * sizeof(T)) : std::memcpy(array, flat, n * sizeof(T));
  } else if (kLoad && stride == 0) {
    const T value = *(const T*)array;
    for (int64_t i = 0; i < n; ++i) flat[i] = value;
  } else {
    for (int64_t i = 0; i < n; ++i, array += stride) {
      T* element = (T*)array;
      kLoad ? flat[i] = *element : *element = flat[i];
    }
  }
}

template <typename T, bool kLoad>
void move(const View& view, uint8_t* array, int64_t first, int64_t n, uint8_t* flat) {
  if (n <= 0) return;
  array += view.offset;
  if (view.rank == 0) return run<T, kLoad>(array, sizeof(T), 1, flat);
  const int inner = view.rank - 1;
  int64_t at[kRank], rest = first;
  for (int d = inner; d >= 0; --d) {
    at[d] = rest % view.size[d];
    rest /= view.size[d];
    array += at[d] * view.stride[d];
  }
  const int64_t length = view.size[inner], stride = view.stride[inner];
  while (n > 0) {
    const int64_t now = std::min(n, length - at[inner]);
    run<T, kLoad>(array, stride, now, flat);
    flat += now * sizeof(T);
    n -= now;
    array -= at[inner] * stride;
    at[inner] = 0;
    for (int d = inner - 1; d >= 0; --d) {
      array += view.stride[d];
      if (++at[d] < view.size[d]) break;
      array -= view.size[d] * view.stride[d];
      at[d] = 0;
    }
  }
}

template <bool kLoad>
void by_width(const View& view, uint8_t* array, int width, int64_t first, int64_t n, uint8_t* flat) {
  switch (width) {
    case 1: return move<uint8_t, kLoad>(view, array, first, n, flat);
    case 2: return move<uint16_t, kLoad>(view, array, first, n, flat);
    case 4: return move<uint32_t, kLoad>(view, array, first, n, flat);
    default: return move<uint64_t, kLoad>(view, array, first, n, flat);
  }
}

}  // namespace

void load(const View& view, const uint8_t* array, int width, int64_t first, int64_t n, uint8_t* to) {
  by_width<true>(view, const_cast<uint8_t*>(array), width, first, n, to);
}

void store(const View& view, uint8_t* array, int width, int64_t first, int64_t n, const uint8_t* from) {
  by_width<false>(view, array, width, first, n, const_cast<uint8_t*>(from));
}
