// Matrix product modulo 2^32 and 2^64, as an XLA FFI call: z[b, m, n] = sum_k x[b, m, k] * y[b, k, n].
// With `x_transposed`, x lies in memory as [b, k, m]; with `y_transposed`, y as [b, n, k].
//
// The output is cut into blocks, one task each. A task packs its operands into panels that stay in
// cache and runs register tiles over them. Overflow wraps: that is the ring.

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

// A block of the output, and how much of the sum is packed at once: 2^16 elements of each operand in
// the second-level cache, of which one panel of y in the first.
constexpr int64_t kBlockRows = 256, kBlockColumns = 256, kBlockDepth = 256;

// Panels of `width` columns, row after row; missing columns are zero. Narrower elements are widened.
template <typename F, typename T>
void pack(const Matrix<const F>& from, int width, T* to) {
  for (int64_t j = 0; j < from.columns; j += width) {
    const int64_t present = std::min<int64_t>(width, from.columns - j);
    const F* start = from.data + j * from.column_stride;
    for (int64_t i = 0; i < from.rows; ++i, to += width) {
      const F* row = start + i * from.row_stride;
      if (from.column_stride == 1 && present == width) {
        std::copy(row, row + width, to);
        continue;
      }
      for (int64_t c = 0; c < present; ++c) to[c] = row[c * from.column_stride];
      std::fill(to + present, to + width, T{0});
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

template <typename Tile, typename X, typename Y, typename T>
void block_product(const Matrix<const X>& x, const Matrix<const Y>& y, const Matrix<T>& z) {
  const int64_t depth = x.columns, step = std::min(depth, kBlockDepth);
  const int64_t x_size = (z.rows + Tile::kRows) * step, y_size = (z.columns + Tile::kColumns) * step;
  T* packed_y = scratch<T>(x_size + y_size);
  T* packed_x = packed_y + y_size;
  for (int64_t p = 0; p < depth; p += kBlockDepth) {
    const Matrix<const X> x_part = x.block(0, p, x.rows, kBlockDepth);
    pack(x_part.transposed(), Tile::kRows, packed_x);
    pack(y.block(p, 0, kBlockDepth, y.columns), Tile::kColumns, packed_y);
    tiles<Tile, T>(x_part.columns, packed_x, packed_y, z, p > 0);
  }
}

template <typename Tile, typename X, typename Y, typename T>
void product(ffi::ThreadPool& pool, int64_t batch, const Matrix<const X>& x, const Matrix<const Y>& y,
             const Matrix<T>& z) {
  if (z.columns < Tile::kColumns && z.columns < z.rows)  // the longer side goes along the vectors
    return product<Tile>(pool, batch, y.transposed(), x.transposed(), z.transposed());
  const int64_t x_size = x.rows * x.columns, y_size = y.rows * y.columns, z_size = z.rows * z.columns;
  int64_t height = kBlockRows, width = kBlockColumns;
  const int64_t wanted = pool.num_threads() > 1 ? 2 * pool.num_threads() : 1;
  auto blocks = [&] { return batch * ceil_div(z.rows, height) * ceil_div(z.columns, width); };
  while (blocks() < wanted && width > 2 * Tile::kColumns) width /= 2;
  while (blocks() < wanted && height > 2 * Tile::kRows) height /= 2;
  const int64_t down = ceil_div(z.rows, height), across = ceil_div(z.columns, width);
  parallel(pool, batch * down * across, [=](int64_t task) {
    const int64_t b = task / (down * across), i = task / across % down * height, j = task % across * width;
    Matrix<const X> x_b = x;
    Matrix<const Y> y_b = y;
    Matrix<T> z_b = z;
    x_b.data += b * x_size;
    y_b.data += b * y_size;
    z_b.data += b * z_size;
    block_product<Tile>(x_b.block(i, 0, height, x.columns), y_b.block(0, j, y.rows, width),
                        z_b.block(i, j, height, width));
  });
}

template <typename X, typename Y, typename T>
ffi::Error matmul(ffi::ThreadPool& pool, bool x_transposed, bool y_transposed, ffi::AnyBuffer& x,
                  ffi::AnyBuffer& y, ffi::AnyBuffer& z) {
  const auto x_shape = x.dimensions(), z_shape = z.dimensions();
  const size_t rank = z_shape.size();
  if (rank < 2 || x_shape.size() != rank || y.dimensions().size() != rank)
    return ffi::Error::InvalidArgument("spuvm_ring_matmul: operands of different ranks");
  const int64_t m = z_shape[rank - 2], n = z_shape[rank - 1];
  const int64_t k = x_shape[rank - (x_transposed ? 2 : 1)];
  int64_t batch = 1;
  for (size_t i = 0; i + 2 < rank; ++i) batch *= z_shape[i];
  if (static_cast<int64_t>(x.element_count()) != batch * m * k ||
      static_cast<int64_t>(y.element_count()) != batch * k * n)
    return ffi::Error::InvalidArgument("spuvm_ring_matmul: shapes that do not fit");
  T* to = reinterpret_cast<T*>(z.untyped_data());
  if (k == 0) std::fill(to, to + batch * m * n, T{0});
  if (batch * m * n * k == 0) return ffi::Error::Success();
  const X* from_x = reinterpret_cast<const X*>(x.untyped_data());
  const Y* from_y = reinterpret_cast<const Y*>(y.untyped_data());
  const Matrix<const X> left{from_x, m, k, x_transposed ? 1 : k, x_transposed ? m : 1};
  const Matrix<const Y> right{from_y, k, n, y_transposed ? 1 : n, y_transposed ? k : 1};
  const Matrix<T> result{to, m, n, n, 1};
#if defined(__x86_64__)
  if (level == 2) {
    product<TileAvx512<T>>(pool, batch, left, right, result);
    return ffi::Error::Success();
  }
  if (level == 1) {
    product<TileAvx2<T>>(pool, batch, left, right, result);
    return ffi::Error::Success();
  }
#endif
  product<TilePlain<T>>(pool, batch, left, right, result);
  return ffi::Error::Success();
}

ffi::Error dispatch(ffi::ThreadPool pool, bool x_transposed, bool y_transposed, ffi::AnyBuffer x,
                    ffi::AnyBuffer y, ffi::Result<ffi::AnyBuffer> z) {
  constexpr auto U8 = ffi::DataType::U8, U32 = ffi::DataType::U32, U64 = ffi::DataType::U64;
  auto are = [&](ffi::DataType of_x, ffi::DataType of_y, ffi::DataType of_z) {
    return x.element_type() == of_x && y.element_type() == of_y && z->element_type() == of_z;
  };
  if (are(U64, U64, U64)) return matmul<uint64_t, uint64_t, uint64_t>(pool, x_transposed, y_transposed, x, y, *z);
  if (are(U8, U64, U64)) return matmul<uint8_t, uint64_t, uint64_t>(pool, x_transposed, y_transposed, x, y, *z);
  if (are(U64, U8, U64)) return matmul<uint64_t, uint8_t, uint64_t>(pool, x_transposed, y_transposed, x, y, *z);
  if (are(U32, U32, U32)) return matmul<uint32_t, uint32_t, uint32_t>(pool, x_transposed, y_transposed, x, y, *z);
  return ffi::Error::InvalidArgument("spuvm_ring_matmul: uint32 or uint64, or uint8 with uint64");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(spuvm_ring_matmul, dispatch,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<bool>("x_transposed")
                                  .Attr<bool>("y_transposed")
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());

extern "C" {

// The instruction set in use: 0 plain, 1 AVX2, 2 AVX-512.
int spuvm_ring_level() { return level; }

// Uses `wanted`, or the best this processor has below it, so that tests reach every kernel on one machine.
int spuvm_ring_set_level(int wanted) { return level = std::max(0, std::min(wanted, detect())); }

}  // extern "C"
