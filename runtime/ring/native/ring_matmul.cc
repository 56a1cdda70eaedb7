// Sums of matrix products modulo 2^32 and 2^64, as an XLA FFI call: z[b, m, n] = sum_k x[b, m, k] * y[b, k, n], summed
// over pairs x, y of the same shapes. With `x_transposed`, x lies in memory as [b, k, m]; with `y_transposed`, y as
// [b, n, k].
//
// The output is cut into blocks, one task each, which runs register tiles over packed operands. Overflow wraps: that
// is the ring.

#include <vector>

#include "ring_work.h"

namespace {

#if defined(__x86_64__)
#define TILE_NAME TileAvx512
#define TILE_TARGET __attribute__((target("avx512f,avx512dq")))
#define TILE_BYTES 64
#define TILE_ROWS 8
#include "ring_tile.h"

#define TILE_NAME TileAvx2
#define TILE_TARGET __attribute__((target("avx2")))
#define TILE_BYTES 32
#define TILE_ROWS 4
#include "ring_tile.h"
#endif

#define TILE_NAME TilePlain
#define TILE_TARGET
#define TILE_BYTES 16
#define TILE_ROWS 4
#include "ring_tile.h"

// Levels: 0 plain, 1 AVX2, 2 AVX-512.
int detect() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return 2;
  if (__builtin_cpu_supports("avx2")) return 1;
#endif
  return 0;
}

std::atomic<int> level{detect()};

// A task computes a block of the output. It packs y for the whole block, `kBlockDepth` rows at a time, and x for
// `kStripRows` rows, which stay in the second-level cache while the panels of y pass by.
constexpr int64_t kBlockRows = 512, kBlockColumns = 512, kBlockDepth = 512, kStripRows = 64;

// Panels of `kWidth` columns, row after row; missing columns are zero. Narrower elements are widened.
template <int kWidth, typename F, typename T>
void pack(const Matrix<const F>& from, T* to) {
  for (int64_t j = 0; j < from.columns; j += kWidth) {
    const int64_t present = std::min<int64_t>(kWidth, from.columns - j);
    const F* row = from.data + j * from.column_stride;
    for (int64_t i = 0; i < from.rows; ++i, to += kWidth, row += from.row_stride) {
      if (present < kWidth) {
        for (int64_t c = 0; c < present; ++c) to[c] = row[c * from.column_stride];
        std::fill(to + present, to + kWidth, T{0});
      } else if (from.column_stride == 1) {
        std::copy_n(row, kWidth, to);
      } else {
        for (int c = 0; c < kWidth; ++c) to[c] = row[c * from.column_stride];
      }
    }
  }
}

template <typename Tile, typename T>
void tiles(int64_t depth, const T* x, const T* y, const Matrix<T>& z, bool add) {
  for (int64_t j = 0; j < z.columns; j += Tile::kColumns, y += depth * Tile::kColumns) {
    const T* panel = x;
    for (int64_t i = 0; i < z.rows; i += Tile::kRows, panel += depth * Tile::kRows) {
      const Matrix<T> tile = z.block(i, j, Tile::kRows, Tile::kColumns);
      if (tile.rows == Tile::kRows && tile.columns == Tile::kColumns && z.column_stride == 1) {
        Tile::run(depth, panel, y, tile.data, z.row_stride, add);
        continue;
      }
      T edge[Tile::kRows * Tile::kColumns];
      Tile::run(depth, panel, y, edge, Tile::kColumns, false);
      for (int64_t r = 0; r < tile.rows; ++r)
        for (int64_t c = 0; c < tile.columns; ++c) {
          T& to = tile.data[r * z.row_stride + c * z.column_stride];
          to = (add ? to : T{0}) + edge[r * Tile::kColumns + c];
        }
    }
  }
}

template <typename X, typename Y>
struct Pair {
  Matrix<const X> x;
  Matrix<const Y> y;

  Pair<Y, X> transposed() const { return {y.transposed(), x.transposed()}; }
};

template <typename Tile, typename X, typename Y, typename T>
void block_product(const Matrix<const X>& x, const Matrix<const Y>& y, const Matrix<T>& z, bool add) {
  const int64_t depth = x.columns, step = std::min(depth, kBlockDepth), rows = std::min(z.rows, kStripRows);
  const int64_t x_size = (rows + Tile::kRows) * step, y_size = (z.columns + Tile::kColumns) * step;
  T* packed_y = scratch<T>(x_size + y_size);
  T* packed_x = packed_y + y_size;
  for (int64_t p = 0; p < depth; p += kBlockDepth) {
    pack<Tile::kColumns>(y.block(p, 0, kBlockDepth, z.columns), packed_y);
    for (int64_t i = 0; i < z.rows; i += kStripRows) {
      const Matrix<const X> strip = x.block(i, p, kStripRows, kBlockDepth);
      pack<Tile::kRows>(strip.transposed(), packed_x);
      tiles<Tile, T>(strip.columns, packed_x, packed_y, z.block(i, 0, kStripRows, z.columns), add || p > 0);
    }
  }
}

template <typename Tile, typename X, typename Y, typename T, typename Pool>
void product(Pool& pool, int64_t batch, const std::vector<Pair<X, Y>>& pairs, const Matrix<T>& z) {
  if (z.columns < Tile::kColumns && z.columns < z.rows) {  // the longer side goes along the vectors
    std::vector<Pair<Y, X>> turned;
    for (const auto& pair : pairs) turned.push_back(pair.transposed());
    return product<Tile>(pool, batch, turned, z.transposed());
  }
  const int64_t depth = pairs[0].x.columns;
  int64_t height = kBlockRows, width = kBlockColumns;
  const int64_t wanted = pool.num_threads() > 1 ? 2 * pool.num_threads() : 1;
  const auto blocks = [&] { return batch * ceil_div(z.rows, height) * ceil_div(z.columns, width); };
  const auto narrow = [&] { return width <= 2 * Tile::kColumns; };
  const auto low = [&] { return height <= 2 * Tile::kRows; };
  while (blocks() < wanted && !(narrow() && low())) (narrow() || (height > width && !low()) ? height : width) /= 2;
  const int64_t down = ceil_div(z.rows, height), across = ceil_div(z.columns, width);
  parallel(pool, batch * down * across, [=, &pairs](int64_t task) {
    const int64_t b = task / (down * across), i = task / across % down * height, j = task % across * width;
    Matrix<T> z_b = z;
    z_b.data += b * z.rows * z.columns;
    bool add = false;
    for (Pair<X, Y> pair : pairs) {
      pair.x.data += b * z.rows * depth;
      pair.y.data += b * depth * z.columns;
      block_product<Tile>(pair.x.block(i, 0, height, depth), pair.y.block(0, j, depth, width),
                          z_b.block(i, j, height, width), add);
      add = true;
    }
  });
}

template <typename X, typename Y, typename T, typename Pool>
void sum_of_products(Pool& pool, int64_t batch, int64_t m, int64_t n, int64_t k, bool x_transposed, bool y_transposed,
                     const std::vector<const void*>& operands, T* to) {
  std::vector<Pair<X, Y>> pairs;
  for (size_t i = 0; i < operands.size(); i += 2)
    pairs.push_back({{reinterpret_cast<const X*>(operands[i]), m, k, x_transposed ? 1 : k, x_transposed ? m : 1},
                     {reinterpret_cast<const Y*>(operands[i + 1]), k, n, y_transposed ? 1 : n, y_transposed ? k : 1}});
  if (k == 0) std::fill(to, to + batch * m * n, T{0});
  if (batch * m * n * k == 0) return;
  const Matrix<T> result{to, m, n, n, 1};
#if defined(__x86_64__)
  if (level == 2) return product<TileAvx512<T>>(pool, batch, pairs, result);
  if (level == 1) return product<TileAvx2<T>>(pool, batch, pairs, result);
#endif
  product<TilePlain<T>>(pool, batch, pairs, result);
}

template <typename X, typename Y, typename T>
ffi::Error matmul(ffi::ThreadPool& pool, bool x_transposed, bool y_transposed,
                  const std::vector<ffi::AnyBuffer>& operands, ffi::AnyBuffer& z) {
  const auto shape = z.dimensions();
  const size_t rank = shape.size();
  if (rank < 2 || operands[0].dimensions().size() != rank)
    return ffi::Error::InvalidArgument("spuvm_ring_matmul: operands of different ranks");
  const int64_t m = shape[rank - 2], n = shape[rank - 1];
  const int64_t k = operands[0].dimensions()[rank - (x_transposed ? 2 : 1)];
  int64_t batch = 1;
  for (size_t i = 0; i + 2 < rank; ++i) batch *= shape[i];
  std::vector<const void*> data;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (static_cast<int64_t>(operands[i].element_count()) != batch * k * (i % 2 ? n : m))
      return ffi::Error::InvalidArgument("spuvm_ring_matmul: shapes that do not fit");
    data.push_back(operands[i].untyped_data());
  }
  T* to = reinterpret_cast<T*>(z.untyped_data());
  sum_of_products<X, Y, T>(pool, batch, m, n, k, x_transposed, y_transposed, data, to);
  return ffi::Error::Success();
}

ffi::Error dispatch(ffi::ThreadPool pool, bool x_transposed, bool y_transposed, ffi::RemainingArgs arguments,
                    ffi::Result<ffi::AnyBuffer> z) {
  constexpr auto U8 = ffi::DataType::U8, U32 = ffi::DataType::U32, U64 = ffi::DataType::U64;
  std::vector<ffi::AnyBuffer> operands;
  for (size_t i = 0; i < arguments.size(); ++i) {
    auto operand = arguments.get<ffi::AnyBuffer>(i);
    if (operand.has_error()) return operand.error();
    operands.push_back(*operand);
  }
  if (operands.empty() || operands.size() % 2)
    return ffi::Error::InvalidArgument("spuvm_ring_matmul: operands come in pairs");
  auto are = [&](ffi::DataType of_x, ffi::DataType of_y, ffi::DataType of_z) {
    bool all = z->element_type() == of_z;
    for (size_t i = 0; i < operands.size(); ++i) all = all && operands[i].element_type() == (i % 2 ? of_y : of_x);
    return all;
  };
  if (are(U64, U64, U64)) return matmul<uint64_t, uint64_t, uint64_t>(pool, x_transposed, y_transposed, operands, *z);
  if (are(U8, U64, U64)) return matmul<uint8_t, uint64_t, uint64_t>(pool, x_transposed, y_transposed, operands, *z);
  if (are(U64, U8, U64)) return matmul<uint64_t, uint8_t, uint64_t>(pool, x_transposed, y_transposed, operands, *z);
  if (are(U32, U32, U32)) return matmul<uint32_t, uint32_t, uint32_t>(pool, x_transposed, y_transposed, operands, *z);
  return ffi::Error::InvalidArgument("spuvm_ring_matmul: uint32 or uint64, or uint8 with uint64");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(spuvm_ring_matmul, dispatch,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<bool>("x_transposed")
                                  .Attr<bool>("y_transposed")
                                  .RemainingArgs()
                                  .Ret<ffi::AnyBuffer>());

extern "C" {

// The same without XLA: `type` 0 for uint64, 1 for uint8 by uint64, 2 for uint64 by uint8, 3 for uint32.
void spuvm_ring_product(int type, int64_t batch, int64_t m, int64_t n, int64_t k, bool x_transposed, bool y_transposed,
                        int64_t pairs, const void* const* operands, void* z, int threads) {
  EngineThreads pool{threads};
  const std::vector<const void*> data(operands, operands + 2 * pairs);
  const auto run = [&](auto x, auto y, auto* to) {
    sum_of_products<decltype(x), decltype(y)>(pool, batch, m, n, k, x_transposed, y_transposed, data, to);
  };
  if (type == 0) run(uint64_t{}, uint64_t{}, static_cast<uint64_t*>(z));
  if (type == 1) run(uint8_t{}, uint64_t{}, static_cast<uint64_t*>(z));
  if (type == 2) run(uint64_t{}, uint8_t{}, static_cast<uint64_t*>(z));
  if (type == 3) run(uint32_t{}, uint32_t{}, static_cast<uint32_t*>(z));
}

// The instruction set in use: 0 plain, 1 AVX2, 2 AVX-512.
int spuvm_ring_level() { return level; }

// Uses `wanted`, or the best this processor has below it, so that tests reach every kernel on one machine.
int spuvm_ring_set_level(int wanted) { return level = std::max(0, std::min(wanted, detect())); }

}  // extern "C"
