// The element-wise operations of the vector engine, each a loop over one block. Included once per instruction set,
// because the target belongs to each function. No include guard, on purpose.
//
// An operation reads n elements at a, b and c and writes n at d; in its scalar form b is one element for all. d may be
// a or b itself, never overlap them otherwise. Words are unsigned; what has a sign says so (slt, sar).

namespace LOOPS_NAMESPACE {

#define LOOP static LOOPS_TARGET void
#define EACH _Pragma("GCC ivdep") for (int64_t i = 0; i < n; ++i)

// d = EXPR of x and y, both of type T; the result of type D.
#define BINARY_AS(NAME, D, T, S, W, EXPR) VECTOR_AS(NAME, D, T, S, W, EXPR) SCALAR_AS(NAME, D, T, S, W, EXPR)
#define VECTOR_AS(NAME, D, T, S, W, EXPR)                                                                           \
  LOOP NAME##_##T##_vv(void* d_, const void* a_, const void* b_, const void*, int64_t n) {                          \
    D* d = (D*)d_;                                                                                                  \
    const T *a = (const T*)a_, *b = (const T*)b_;                                                                   \
    EACH {                                                                                                          \
      const T x = a[i], y = b[i];                                                                                   \
      d[i] = (D)(EXPR);                                                                                             \
    }                                                                                                               \
  }
#define SCALAR_AS(NAME, D, T, S, W, EXPR)                                                                           \
  LOOP NAME##_##T##_vs(void* d_, const void* a_, const void* b_, const void*, int64_t n) {                          \
    D* d = (D*)d_;                                                                                                  \
    const T* a = (const T*)a_;                                                                                      \
    const T y = *(const T*)b_;                                                                                      \
    EACH {                                                                                                          \
      const T x = a[i];                                                                                             \
      d[i] = (D)(EXPR);                                                                                             \
    }                                                                                                               \
  }
#define UNARY_AS(NAME, D, T, S, W, EXPR)                                                   \
  LOOP NAME##_##T##_vv(void* d_, const void* a_, const void*, const void*, int64_t n) {    \
    D* d = (D*)d_;                                                                         \
    const T* a = (const T*)a_;                                                             \
    EACH {                                                                                 \
      const T x = a[i];                                                                    \
      d[i] = (D)(EXPR);                                                                    \
    }                                                                                      \
  }

#define BINARY(NAME, EXPR)                      \
  BINARY_AS(NAME, u8, u8, int8_t, 8, EXPR)      \
  BINARY_AS(NAME, u16, u16, int16_t, 16, EXPR)  \
  BINARY_AS(NAME, u32, u32, int32_t, 32, EXPR)  \
  BINARY_AS(NAME, u64, u64, int64_t, 64, EXPR)
#define COMPARE(NAME, OPERATOR)                                         \
  BINARY_AS(NAME, u8, u8, int8_t, 8, x OPERATOR y)                      \
  BINARY_AS(NAME, u8, u16, int16_t, 16, x OPERATOR y)                   \
  BINARY_AS(NAME, u8, u32, int32_t, 32, x OPERATOR y)                   \
  BINARY_AS(NAME, u8, u64, int64_t, 64, x OPERATOR y)
#define COMPARE_SIGNED(NAME, OPERATOR)                                  \
  BINARY_AS(s##NAME, u8, u8, int8_t, 8, (int8_t)x OPERATOR(int8_t) y)   \
  BINARY_AS(s##NAME, u8, u16, int16_t, 16, (int16_t)x OPERATOR(int16_t) y) \
  BINARY_AS(s##NAME, u8, u32, int32_t, 32, (int32_t)x OPERATOR(int32_t) y) \
  BINARY_AS(s##NAME, u8, u64, int64_t, 64, (int64_t)x OPERATOR(int64_t) y)
#define UNARY(NAME, EXPR)                      \
  UNARY_AS(NAME, u8, u8, int8_t, 8, EXPR)      \
  UNARY_AS(NAME, u16, u16, int16_t, 16, EXPR)  \
  UNARY_AS(NAME, u32, u32, int32_t, 32, EXPR)  \
  UNARY_AS(NAME, u64, u64, int64_t, 64, EXPR)

BINARY(add, x + y)
BINARY(sub, x - y)
BINARY(mul, (x + u64{0}) * y)
BINARY(and, x & y)
BINARY(or, x | y)
BINARY(xor, x ^ y)
BINARY(max, x > y ? x : y)
BINARY(min, x < y ? x : y)
BINARY(div, y ? x / y : ~decltype(x + 0){0})
BINARY(rem, y ? x % y : x)
COMPARE(eq, ==)
COMPARE(ne, !=)
COMPARE(lt, <)
COMPARE(le, <=)
COMPARE(gt, >)
COMPARE(ge, >=)
COMPARE_SIGNED(lt, <)
COMPARE_SIGNED(le, <=)
COMPARE_SIGNED(gt, >)
COMPARE_SIGNED(ge, >=)
UNARY(not, ~x)
UNARY(neg, 0 - x)
UNARY(copy, x)
UNARY(popcount, __builtin_popcountll(x))
UNARY_AS(clz, u8, u8, int8_t, 8, x ? __builtin_clz(x) - 24 : 8)
UNARY_AS(clz, u16, u16, int16_t, 16, x ? __builtin_clz(x) - 16 : 16)
UNARY_AS(clz, u32, u32, int32_t, 32, x ? __builtin_clz(x) : 32)
UNARY_AS(clz, u64, u64, int64_t, 64, x ? __builtin_clzll(x) : 64)

// What depends on the width: shifts by the width and more, and divisions with a sign that overflow, are XLA's.
#define SHIFT_LEFT(AS, T, S, W) AS(shl, T, T, S, W, y < W ? (T)(x << (y & (W - 1))) : 0)
#define SHIFT_RIGHT(AS, T, S, W) AS(shr, T, T, S, W, y < W ? (T)(x >> (y & (W - 1))) : 0)
#define BY_WIDTH(T, S, W)                                                                        \
  SHIFT_LEFT(VECTOR_AS, T, S, W)                                                                 \
  SHIFT_RIGHT(VECTOR_AS, T, S, W)                                                                \
  BINARY_AS(sar, T, T, S, W, (S)x >> (y < W ? y & (W - 1) : W - 1))                              \
  BINARY_AS(smax, T, T, S, W, (S)x > (S)y ? x : y)                                               \
  BINARY_AS(smin, T, T, S, W, (S)x < (S)y ? x : y)                                               \
  BINARY_AS(sdiv, T, T, S, W, y == 0 ? ~(T)0 : y == (T)~(T)0 ? (T)(0 - x) : (T)((S)x / (S)y))    \
  BINARY_AS(srem, T, T, S, W, y == 0 ? x : y == (T)~(T)0 ? (T)0 : (T)((S)x % (S)y))              \
  UNARY_AS(sabs, T, T, S, W, (S)x < 0 ? (T)(0 - x) : x)                                          \
  UNARY_AS(ssign, T, T, S, W, (S)x < 0 ? ~(T)0 : (T)(x != 0))                                    \
  UNARY_AS(usign, T, T, S, W, (T)(x != 0))                                                       \
  UNARY_AS(bool, u8, T, S, W, x != 0)                                                            \
  LOOP fill_##T##_vv(void* d_, const void* a_, const void*, const void*, int64_t n) {            \
    T* d = (T*)d_;                                                                               \
    const T x = *(const T*)a_;                                                                   \
    EACH d[i] = x;                                                                               \
  }                                                                                              \
  /* d = c ? b : a, without a branch: c holds bools. */                                          \
  LOOP select_##T##_vv(void* d_, const void* a_, const void* b_, const void* c_, int64_t n) {    \
    T* d = (T*)d_;                                                                               \
    const T *a = (const T*)a_, *b = (const T*)b_;                                                \
    const u8* c = (const u8*)c_;                                                                 \
    EACH d[i] = a[i] ^ ((a[i] ^ b[i]) & (T)(0 - (T)c[i]));                                       \
  }

BY_WIDTH(u8, int8_t, 8)
BY_WIDTH(u16, int16_t, 16)
BY_WIDTH(u32, int32_t, 32)
BY_WIDTH(u64, int64_t, 64)

// All by the same number of bits, less than the width: what is more is zero.
#define SHIFT_BY(NAME, T, W, EXPR)                                                               \
  LOOP NAME##_##T##_vs(void* d_, const void* a_, const void* b_, const void*, int64_t n) {       \
    T* d = (T*)d_;                                                                               \
    const T* a = (const T*)a_;                                                                   \
    const T mask = *(const T*)b_ < W ? ~(T)0 : 0, y = *(const T*)b_ & (W - 1);                   \
    if (mask) {                                                                                  \
      EACH d[i] = a[i] EXPR y;                                                                   \
    } else {                                                                                     \
      EACH d[i] = 0;                                                                             \
    }                                                                                            \
  }
SHIFT_BY(shl, u32, 32, <<)
SHIFT_BY(shl, u64, 64, <<)
SHIFT_BY(shr, u32, 32, >>)
SHIFT_BY(shr, u64, 64, >>)

// Narrow words shifted eight bytes at a time.
#define NARROW_SHIFT(NAME, T, W, SHIFTED, ONE)                                                    \
  LOOP NAME##_##T##_swar(void* d_, const void* a_, const void* b_, const void*, int64_t n) {      \
    const T y = *(const T*)b_;                                                                    \
    const T mask = y < W ? (T)((T)~(T)0 ONE (y & (W - 1))) : 0;                                   \
    const int by = y & (W - 1);                                                                   \
    const u64 wide = mask * (~u64{0} / (T)~(T)0);                                                 \
    const int64_t words = n * (int64_t)sizeof(T) / 8;                                             \
    {                                                                                             \
      wide64* d = (wide64*)d_;                                                                    \
      const wide64* a = (const wide64*)a_;                                                        \
      _Pragma("GCC ivdep") for (int64_t i = 0; i < words; ++i) d[i] = (a[i] SHIFTED by) & wide;   \
    }                                                                                             \
    T* d = (T*)d_;                                                                                \
    const T* a = (const T*)a_;                                                                    \
    for (int64_t i = words * 8 / (int64_t)sizeof(T); i < n; ++i) d[i] = (T)(a[i] SHIFTED by) & mask; \
  }
NARROW_SHIFT(shl, u8, 8, <<, <<)
NARROW_SHIFT(shl, u16, 16, <<, <<)
NARROW_SHIFT(shr, u8, 8, >>, >>)
NARROW_SHIFT(shr, u16, 16, >>, >>)

// NAME from words of one width, with or without a sign, to another.
#define CONVERT(D, T, S)                        \
  UNARY_AS(to_##D, D, T, S, 0, x)               \
  UNARY_AS(sto_##D, D, T, S, 0, (S)x)
CONVERT(u16, u8, int8_t)
CONVERT(u32, u8, int8_t)
CONVERT(u64, u8, int8_t)
CONVERT(u8, u16, int16_t)
CONVERT(u32, u16, int16_t)
CONVERT(u64, u16, int16_t)
CONVERT(u8, u32, int32_t)
CONVERT(u16, u32, int32_t)
CONVERT(u64, u32, int32_t)
CONVERT(u8, u64, int64_t)
CONVERT(u16, u64, int64_t)
CONVERT(u32, u64, int64_t)

// z += x * y for a row of y; and the inner product of two rows.
#define PRODUCTS(T)                                                                        \
  LOOP addmul_##T(void* d_, const void* a_, const void* b_, int64_t n) {                   \
    T* d = (T*)d_;                                                                         \
    const u64 x = *(const T*)a_;                                                           \
    const T* b = (const T*)b_;                                                             \
    EACH d[i] = (T)(d[i] + x * b[i]);                                                      \
  }                                                                                        \
  LOOP inner_##T(void* d_, const void* a_, const void* b_, int64_t n) {                    \
    T sum = 0;                                                                             \
    const T *a = (const T*)a_, *b = (const T*)b_;                                          \
    for (int64_t i = 0; i < n; ++i) sum = (T)(sum + (a[i] + u64{0}) * b[i]);               \
    *(T*)d_ = (T)(*(T*)d_ + sum);                                                          \
  }
PRODUCTS(u8)
PRODUCTS(u16)
PRODUCTS(u32)
PRODUCTS(u64)

#define ROW1(NAME, T) {#NAME "." #T, NAME##_##T##_vv, nullptr},
#define ROW2(NAME, T) {#NAME "." #T, NAME##_##T##_vv, NAME##_##T##_vs},
#define ALL(ROW, NAME) ROW(NAME, u8) ROW(NAME, u16) ROW(NAME, u32) ROW(NAME, u64)
#define KEYED_ROWS(NAME)                    \
  {#NAME "_keys.u64", NAME##_keys, nullptr}, \
  {#NAME "_first.u64", NAME##_first, nullptr}, {#NAME "_second.u64", NAME##_second, nullptr},

static const Operation kOperations[] = {
    ALL(ROW2, add) ALL(ROW2, sub) ALL(ROW2, mul) ALL(ROW2, and) ALL(ROW2, or) ALL(ROW2, xor)
    ALL(ROW2, max) ALL(ROW2, min) ALL(ROW2, smax) ALL(ROW2, smin)
    ALL(ROW2, div) ALL(ROW2, rem) ALL(ROW2, sdiv) ALL(ROW2, srem)
    ALL(ROW2, eq) ALL(ROW2, ne) ALL(ROW2, lt) ALL(ROW2, le) ALL(ROW2, gt) ALL(ROW2, ge)
    ALL(ROW2, slt) ALL(ROW2, sle) ALL(ROW2, sgt) ALL(ROW2, sge)
    {"shl.u8", shl_u8_vv, shl_u8_swar}, {"shl.u16", shl_u16_vv, shl_u16_swar}, ROW2(shl, u32) ROW2(shl, u64)
    {"shr.u8", shr_u8_vv, shr_u8_swar}, {"shr.u16", shr_u16_vv, shr_u16_swar}, ROW2(shr, u32) ROW2(shr, u64)
    ALL(ROW2, sar)
    ALL(ROW1, not) ALL(ROW1, neg) ALL(ROW1, copy) ALL(ROW1, popcount) ALL(ROW1, clz)
    ALL(ROW1, sabs) ALL(ROW1, ssign) ALL(ROW1, usign) ALL(ROW1, bool) ALL(ROW1, fill) ALL(ROW1, select)
    ROW1(to_u16, u8) ROW1(to_u32, u8) ROW1(to_u64, u8) ROW1(to_u8, u16) ROW1(to_u32, u16) ROW1(to_u64, u16)
    ROW1(to_u8, u32) ROW1(to_u16, u32) ROW1(to_u64, u32) ROW1(to_u8, u64) ROW1(to_u16, u64) ROW1(to_u32, u64)
    ROW1(sto_u16, u8) ROW1(sto_u32, u8) ROW1(sto_u64, u8) ROW1(sto_u8, u16) ROW1(sto_u32, u16) ROW1(sto_u64, u16)
    ROW1(sto_u8, u32) ROW1(sto_u16, u32) ROW1(sto_u64, u32) ROW1(sto_u8, u64) ROW1(sto_u16, u64) ROW1(sto_u32, u64)
    KEYED(KEYED_ROWS)
};
constexpr int kCount = sizeof kOperations / sizeof kOperations[0];
static const Product kAddmul[] = {addmul_u8, addmul_u16, addmul_u32, addmul_u64};
static const Product kInner[] = {inner_u8, inner_u16, inner_u32, inner_u64};

#undef LOOP
#undef EACH
#undef BINARY_AS
#undef VECTOR_AS
#undef SCALAR_AS
#undef SHIFT_LEFT
#undef SHIFT_BY
#undef SHIFT_RIGHT
#undef UNARY_AS
#undef BINARY
#undef COMPARE
#undef COMPARE_SIGNED
#undef UNARY
#undef BY_WIDTH
#undef NARROW_SHIFT
#undef CONVERT
#undef PRODUCTS
#undef ROW1
#undef ROW2
#undef ALL
#undef KEYED_ROWS

}  // namespace LOOPS_NAMESPACE

#undef LOOPS_NAMESPACE
#undef LOOPS_TARGET
