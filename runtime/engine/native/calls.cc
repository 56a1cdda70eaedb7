// Operations on whole arrays, between the loops of a program: copies, reductions, products, gathers, running sums.

#include <algorithm>
#include <cstring>

#include "engine.h"

extern "C" {
void spuvm_ring_product(int type, int64_t batch, int64_t m, int64_t n, int64_t k, bool x_transposed, bool y_transposed,
                        int64_t pairs, const void* const* operands, void* z, int threads);
void spuvm_ring_product_wide(int64_t batch, int64_t m, int64_t n, int64_t k, bool x_transposed, bool y_transposed,
                             const void* const* operands, void* low, void* high, int threads);
}

namespace {

constexpr int64_t kPiece = 1 << 15;  // elements of one task of a copy

typedef std::vector<int64_t> Parameters;
typedef std::vector<View> Views;

uint8_t* memory(const View& view, const Context& in) { return in.base[view.array]; }

// views: from, to. parameters: width.
void copy(const Parameters& p, const Views& v, const Context& in) {
  const int64_t count = v[0].count(), width = p[0], pieces = (count + kPiece - 1) / kPiece;
  parallel_for(count > 4 * kPiece ? in.threads : 1, pieces, [&](int64_t piece) {
    constexpr int64_t kStep = 512;
    alignas(64) uint8_t buffer[kStep * 8];
    const int64_t end = std::min(count, (piece + 1) * kPiece);
    for (int64_t i = piece * kPiece; i < end; i += kStep) {
      const int64_t n = std::min(kStep, end - i);
      load(v[0], memory(v[0], in), width, i, n, buffer);
      store(v[1], memory(v[1], in), width, i, n, buffer);
    }
  });
}

// The part of a view that its dimensions from..to-1 are.
View part(const View& view, int from, int to) {
  View out;
  out.array = view.array;
  out.offset = view.offset;
  out.rank = to - from;
  for (int d = from; d < to; ++d) {
    out.size[d - from] = view.size[d];
    out.stride[d - from] = view.stride[d];
  }
  return out;
}

// Bytes from a view's first element to its element i.
int64_t distance(const View& view, int64_t i) {
  int64_t at = 0;
  for (int d = view.rank - 1; d >= 0; --d) {
    at += i % view.size[d] * view.stride[d];
    i /= view.size[d];
  }
  return at;
}

// Elements first .. last - 1 of a view, at least one, folded into one.
void along(Function f, int64_t width, const View& line, const uint8_t* from, int64_t first, int64_t last, uint8_t* to) {
  constexpr int64_t kStep = 1024;
  alignas(64) uint8_t sum[kStep * 8], next[kStep * 8];
  const int64_t head = std::min(last - first, kStep);
  load(line, from, width, first, head, sum);
  for (int64_t i = first + head; i < last; i += kStep) {
    const int64_t now = std::min(kStep, last - i);
    load(line, from, width, i, now, next);
    f(sum, sum, next, nullptr, now);
  }
  fold(f, width, sum, head);
  std::memcpy(to, sum, width);
}

// views: from, whose last dimensions are reduced; to, consecutive. parameters: operation, width, kept dimensions.
void reduce(const Parameters& p, const Views& v, const Context& in) {
  const Function f = in.loops.operations[p[0]].vector;
  const int64_t width = p[1];
  const View kept = part(v[0], 0, (int)p[2]), rest = part(v[0], (int)p[2], v[0].rank);
  const int64_t rows = kept.count(), depth = rest.count();
  const uint8_t* from = memory(v[0], in);
  uint8_t* to = memory(v[1], in) + v[1].offset;
  constexpr int64_t kStep = 1024;
  const auto row_of = [&](int64_t row) {
    View line = rest;
    line.offset += distance(kept, row);
    return line;
  };
  if (rows < 16 && depth > 4 * kPiece) {  // parts of a row in parallel
    const int64_t parts = std::min<int64_t>(64, depth / kPiece);
    std::vector<uint8_t> sums(rows * parts * width);
    parallel_for(in.threads, rows * parts, [&](int64_t i) {
      const int64_t part = i % parts;
      along(f, width, row_of(i / parts), from, part * depth / parts, (part + 1) * depth / parts, &sums[i * width]);
    });
    for (int64_t row = 0; row < rows; ++row) {
      fold(f, width, &sums[row * parts * width], parts);
      std::memcpy(to + row * width, &sums[row * parts * width], width);
    }
    return;
  }
  const bool by_row = rows < 16 || (rest.rank && rest.stride[rest.rank - 1] == width && depth > 64);
  const int64_t step = by_row ? std::max<int64_t>(1, kPiece / std::max<int64_t>(depth, 1)) : kStep;
  const int64_t pieces = (rows + step - 1) / step;
  parallel_for(rows * depth > 4 * kPiece ? in.threads : 1, pieces, [&](int64_t piece) {
    const int64_t first = piece * step, n = std::min(step, rows - first);
    if (!by_row) {
      alignas(64) uint8_t sum[kStep * 8], next[kStep * 8];
      for (int64_t r = 0; r < depth; ++r) {
        const uint8_t* base = from + distance(rest, r);
        load(kept, base, width, first, n, r ? next : sum);
        if (r) f(sum, sum, next, nullptr, n);
      }
      std::memcpy(to + first * width, sum, n * width);
      return;
    }
    for (int64_t row = first; row < first + n; ++row) along(f, width, row_of(row), from, 0, depth, to + row * width);
  });
}

// views: x [b, m, k], y [b, n, k], z [b, m, n]. parameters: the logarithm of the element's bytes.
void dot(const Parameters& p, const Views& v, const Context& in) {
  View x = v[0], y = v[1], z = v[2];
  if (y.size[1] == 1 && x.size[1] > 1) {
    std::swap(x, y);
    std::swap(z.size[1], z.size[2]);
    std::swap(z.stride[1], z.stride[2]);
  }
  const int64_t width = int64_t{1} << p[0], batch = z.size[0], m = z.size[1], n = z.size[2], k = x.size[2];
  const Product addmul = in.loops.addmul[p[0]], inner = in.loops.inner[p[0]];
  const uint8_t *x_at = memory(x, in) + x.offset, *y_at = memory(y, in) + y.offset;
  uint8_t* z_at = memory(z, in) + z.offset;
  const bool rows = y.stride[1] == width && z.stride[2] == width && n > 1;  // else inner products
  const int64_t step = std::max<int64_t>(16, std::min<int64_t>(4096, kPiece / std::max<int64_t>(k, 1)));
  const int64_t across = (n + step - 1) / step;
  const bool wide = batch * m * n * k > 4 * kPiece;
  parallel_for(wide ? in.threads : 1, batch * m * across, [&](int64_t task) {
    const int64_t b = task / (m * across), i = task / across % m, first = task % across * step;
    const int64_t last = std::min(n, first + step);
    const uint8_t *x_row = x_at + b * x.stride[0] + i * x.stride[1], *y_b = y_at + b * y.stride[0];
    uint8_t* z_row = z_at + b * z.stride[0] + i * z.stride[1];
    for (int64_t j = first; j < last; ++j) std::memset(z_row + j * z.stride[2], 0, width);
    if (rows) {
      for (int64_t l = 0; l < k; ++l)
        addmul(z_row + first * width, x_row + l * x.stride[2], y_b + first * width + l * y.stride[2], last - first);
      return;
    }
    constexpr int64_t kStep = 512;
    alignas(64) uint8_t x_buffer[kStep * 8], y_buffer[kStep * 8];
    for (int64_t l = 0; l < k; l += kStep) {
      const int64_t now = std::min(kStep, k - l);
      auto line = [&](const uint8_t* row, int64_t stride, uint8_t* buffer) -> const uint8_t* {
        row += l * stride;
        if (stride == width) return row;
        View view;
        view.rank = 1;
        view.size[0] = now;
        view.stride[0] = stride;
        load(view, row, width, 0, now, buffer);
        return buffer;
      };
      const uint8_t* left = line(x_row, x.stride[2], x_buffer);
      for (int64_t j = first; j < last; ++j)
        inner(z_row + j * z.stride[2], left, line(y_b + j * y.stride[1], y.stride[2], y_buffer), now);
    }
  });
}

int64_t index_at(const uint8_t* at, int64_t width, bool with_sign) {
  switch (width) {
    case 1: return with_sign ? *(const int8_t*)at : *at;
    case 2: return with_sign ? *(const int16_t*)at : *(const uint16_t*)at;
    case 4: return with_sign ? (int64_t) * (const int32_t*)at : (int64_t) * (const uint32_t*)at;
    default: {
      const int64_t i = *(const int64_t*)at;
      return with_sign || i >= 0 ? i : INT64_MAX;
    }
  }
}

// Single elements that one index each chooses: where each of the three lies, and the steps to the next.
struct Chosen {
  const uint8_t *index, *from;
  uint8_t* to;
  int64_t index_step, from_step, to_step, stride, last, index_width;
  bool with_sign;
};

template <typename T>
void choose_of(Chosen c, int64_t n, const int64_t* filler) {
  T fill = 0;
  if (filler) std::memcpy(&fill, filler, sizeof(T));
  for (; n > 0; --n, c.index += c.index_step, c.from += c.from_step, c.to += c.to_step) {
    const int64_t start = index_at(c.index, c.index_width, c.with_sign);
    const int64_t inside = std::max<int64_t>(0, std::min(start, c.last));
    *(T*)c.to = filler && inside != start ? fill : *(const T*)(c.from + inside * c.stride);
  }
}

void choose(const Chosen& c, int64_t n, int64_t width, const int64_t* filler) {
  switch (width) {
    case 1: return choose_of<uint8_t>(c, n, filler);
    case 2: return choose_of<uint16_t>(c, n, filler);
    case 4: return choose_of<uint32_t>(c, n, filler);
    default: return choose_of<uint64_t>(c, n, filler);
  }
}

// The last dimension of a view that has more than one element, or 0.
int innermost(const View& view) {
  int d = view.rank - 1;
  while (d > 0 && view.size[d] == 1) --d;
  return std::max(d, 0);
}

// views: the operand's window, the indices [*batch, indexed], the result's places over the batch, the result's window,
// the operand's places over the batch. parameters: width, width of indices, whether they have a sign, whether what
// lies outside is filled, with what; then for each index its stride and its last value.
void gather(const Parameters& p, const Views& v, const Context& in) {
  const int64_t width = p[0], index_width = p[1];
  const bool with_sign = p[2], fills = p[3];
  const View indices = part(v[1], 0, v[1].rank - 1);
  const int64_t indexed = v[1].size[v[1].rank - 1], index_stride = v[1].stride[v[1].rank - 1];
  const int64_t batch = indices.count(), window = v[0].count();
  const uint8_t *operand = memory(v[0], in), *index = memory(v[1], in) + v[1].offset;
  uint8_t* out = memory(v[2], in) + v[2].offset;
  const int inner = innermost(indices);
  const auto along = [&](const View& view) { return indices.rank ? view.stride[inner] : 0; };
  const int64_t line = indices.rank ? indices.size[inner] : 1;
  const int64_t index_step = along(indices), place_step = along(v[4]), row_step = along(v[2]);
  const auto row = [&](const uint8_t* at, int64_t from, int64_t to) {
    bool outside = false;
    for (int64_t j = 0; j < indexed; ++j, at += index_stride) {
      const int64_t last = p[6 + 2 * j], start = index_at(at, index_width, with_sign);
      const int64_t inside = std::max<int64_t>(0, std::min(start, last));
      outside |= inside != start;
      from += inside * p[5 + 2 * j];
    }
    const bool filled = outside && fills;
    constexpr int64_t kStep = 512;
    alignas(64) uint8_t buffer[kStep * 8];
    for (int64_t w = 0; w < window; w += kStep) {
      const int64_t n = std::min(kStep, window - w);
      if (filled)
        for (int64_t e = 0; e < n; ++e) std::memcpy(buffer + e * width, &p[4], width);
      else
        load(v[0], operand + from, width, w, n, buffer);
      store(v[3], out + to, width, w, n, buffer);
    }
  };
  const bool single = window == 1 && indexed == 1;
  const int64_t step = std::max<int64_t>(1, kPiece / std::max<int64_t>(window, 1)), pieces = (batch + step - 1) / step;
  parallel_for(batch * window > 4 * kPiece ? in.threads : 1, pieces, [&](int64_t piece) {
    const int64_t end = std::min(batch, (piece + 1) * step);
    for (int64_t i = piece * step; i < end;) {
      const uint8_t* at = index + distance(indices, i);
      int64_t from = distance(v[4], i), to = distance(v[2], i), left = std::min(end - i, line - i % line);
      if (single) {
        const Chosen chosen{at, operand + from + v[0].offset, out + to + v[3].offset, index_step, place_step, row_step,
                            p[5], p[6], index_width, with_sign};
        choose(chosen, left, width, fills ? &p[4] : nullptr);
        i += left;
        continue;
      }
      for (; left > 0; --left, ++i) {
        row(at, from, to);
        at += index_step, from += place_step, to += row_step;
      }
    }
  });
}

// views: from and to, both [a, n, b] and consecutive. parameters: operation, width, whether from the end.
void scan(const Parameters& p, const Views& v, const Context& in) {
  const Function f = in.loops.operations[p[0]].vector;
  const int64_t width = p[1], n = v[0].size[1], row = v[0].size[2] * width;
  const uint8_t* from = memory(v[0], in) + v[0].offset;
  uint8_t* to = memory(v[1], in) + v[1].offset;
  for (int64_t a = 0; a < v[0].size[0]; ++a)
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = (a * n + (p[2] ? n - 1 - i : i)) * row;
      if (i == 0)
        std::memcpy(to + at, from + at, row);
      else
        f(to + at, to + at + (p[2] ? row : -row), from + at, nullptr, v[0].size[2]);
    }
}

std::vector<const void*> operands(const Views& v, const Context& in) {
  std::vector<const void*> out;
  for (const View& view : v) out.push_back(memory(view, in) + view.offset);
  return out;
}

// views: the operands pair by pair, then the result. parameters: type, batch, m, n, k, which operands are transposed.
void matmul(const Parameters& p, const Views& v, const Context& in) {
  const auto at = operands(v, in);
  spuvm_ring_product((int)p[0], p[1], p[2], p[3], p[4], p[5], p[6], (int64_t)(at.size() - 1) / 2, at.data(),
                     const_cast<void*>(at.back()), in.threads);
}

// The same of words of 128 bits: views of low and high limbs in turn.
void matmul_wide(const Parameters& p, const Views& v, const Context& in) {
  const auto at = operands(v, in);
  spuvm_ring_product_wide(p[1], p[2], p[3], p[4], p[5], p[6], at.data(), const_cast<void*>(at[4]),
                          const_cast<void*>(at[5]), in.threads);
}

}  // namespace

void fold(Function f, int64_t width, uint8_t* x, int64_t n) {
  for (; n > 1; n = (n + 1) / 2) f(x, x, x + (n + 1) / 2 * width, nullptr, n / 2);
}

void call(int kind, const Parameters& parameters, const Views& views, const Context& context) {
  switch (kind) {
    case kCopy: return copy(parameters, views, context);
    case kReduce: return reduce(parameters, views, context);
    case kDot: return dot(parameters, views, context);
    case kGather: return gather(parameters, views, context);
    case kScan: return scan(parameters, views, context);
    case kMatmul: return matmul(parameters, views, context);
    case kMatmulWide: return matmul_wide(parameters, views, context);
  }
}
