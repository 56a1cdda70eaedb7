// What oblivious transfer extension does on whole arrays: bit transpose, hashes of rows, sums over GF(2^128), trees. x86-64.

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>

#define CRYPTO __attribute__((target("aes,pclmul,sse4.1")))

namespace {

constexpr int kRounds = 10;

struct Schedule {
  __m128i key[kRounds + 1];
};

CRYPTO inline __m128i encrypted(__m128i x, const Schedule& s) {
  x = _mm_xor_si128(x, s.key[0]);
  for (int r = 1; r < kRounds; ++r) x = _mm_aesenc_si128(x, s.key[r]);
  return _mm_aesenclast_si128(x, s.key[kRounds]);
}

CRYPTO inline void encrypted8(__m128i* x, const Schedule& s) {
  for (int i = 0; i < 8; ++i) x[i] = _mm_xor_si128(x[i], s.key[0]);
  for (int r = 1; r < kRounds; ++r)
    for (int i = 0; i < 8; ++i) x[i] = _mm_aesenc_si128(x[i], s.key[r]);
  for (int i = 0; i < 8; ++i) x[i] = _mm_aesenclast_si128(x[i], s.key[kRounds]);
}

// a b modulo x^128 + x^7 + x^2 + x + 1, bit i of the little-endian word the coefficient of x^i.
CRYPTO inline __m128i product(__m128i a, __m128i b) {
  const __m128i poly = _mm_set_epi64x(0, 0x87);
  const __m128i low = _mm_clmulepi64_si128(a, b, 0x00), high = _mm_clmulepi64_si128(a, b, 0x11);
  const __m128i middle = _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10));
  __m128i lo = _mm_xor_si128(low, _mm_slli_si128(middle, 8));
  const __m128i hi = _mm_xor_si128(high, _mm_srli_si128(middle, 8));
  const __m128i top = _mm_clmulepi64_si128(hi, poly, 0x01);  // the upper word of hi, times x^64
  lo = _mm_xor_si128(lo, _mm_slli_si128(top, 8));
  const __m128i rest = _mm_xor_si128(hi, _mm_srli_si128(top, 8));  // its carry joins the lower word
  return _mm_xor_si128(lo, _mm_clmulepi64_si128(rest, poly, 0x00));
}

}  // namespace

extern "C" {

// columns[128][blocks * 16 bytes] -> rows[blocks * 128][16 bytes]: bit j of column i is bit i of row j.
CRYPTO void spuvm_ot_rows(uint8_t* rows, const uint8_t* columns, uint64_t blocks) {
  const uint64_t stride = 16 * blocks;
  for (uint64_t byte = 0; byte < stride; ++byte)
    for (int group = 0; group < 8; ++group) {  // 16 columns
      uint8_t gathered[16];
      for (int i = 0; i < 16; ++i) gathered[i] = columns[(16 * group + i) * stride + byte];
      __m128i v = _mm_loadu_si128((const __m128i*)gathered);
      for (int bit = 7; bit >= 0; --bit, v = _mm_slli_epi64(v, 1)) {
        const uint16_t mask = static_cast<uint16_t>(_mm_movemask_epi8(v));
        std::memcpy(rows + 16 * (8 * byte + bit) + 2 * group, &mask, 2);
      }
    }
}

// out[count][length] = lower words of pi(pi(x) ^ i) ^ pi(x) for x = rows[j] ^ offset, i the number of the word.
CRYPTO void spuvm_ot_hash(const uint8_t* schedule, uint64_t* out, const uint8_t* rows, const uint8_t* offset,
                          uint64_t count, uint64_t length, uint64_t first) {
  Schedule s;
  std::memcpy(&s, schedule, sizeof s);
  const __m128i shift = _mm_loadu_si128((const __m128i*)offset);
  uint64_t tweak = first;
  for (uint64_t j = 0; j < count; ++j) {
    const __m128i once = encrypted(_mm_xor_si128(_mm_loadu_si128((const __m128i*)rows + j), shift), s);
    uint64_t i = 0;
    for (; i + 8 <= length; i += 8) {
      __m128i x[8];
      for (int l = 0; l < 8; ++l) x[l] = _mm_xor_si128(once, _mm_set_epi64x(0, tweak++));
      encrypted8(x, s);
      for (int l = 0; l < 8; ++l) *out++ = _mm_cvtsi128_si64(_mm_xor_si128(x[l], once));
    }
    for (; i < length; ++i) {
      const __m128i twice = encrypted(_mm_xor_si128(once, _mm_set_epi64x(0, tweak++)), s);
      *out++ = _mm_cvtsi128_si64(_mm_xor_si128(twice, once));
    }
  }
}

// out[r] = the sum over b of factors[b] rows[r][b] in GF(2^128), 16 bytes each.
CRYPTO void spuvm_ot_sums(uint8_t* out, const uint8_t* factors, const uint8_t* rows, uint64_t count, uint64_t blocks) {
  for (uint64_t r = 0; r < count; ++r) {
    __m128i sum = _mm_setzero_si128();
    for (uint64_t b = 0; b < blocks; ++b)
      sum = _mm_xor_si128(sum, product(_mm_loadu_si128((const __m128i*)factors + b),
                                       _mm_loadu_si128((const __m128i*)rows + r * blocks + b)));
    _mm_storeu_si128((__m128i*)out + r, sum);
  }
}

// out[2 i] = pi_0(x[i]) ^ x[i], out[2 i + 1] = pi_1(x[i]) ^ x[i]: AES under two fixed keys.
CRYPTO void spuvm_ot_children(const uint8_t* schedules, uint8_t* out, const uint8_t* nodes, uint64_t count) {
  Schedule s[2];
  std::memcpy(s, schedules, sizeof s);
  for (uint64_t i = 0; i < count; i += 8) {
    const uint64_t many = count - i < 8 ? count - i : 8;
    __m128i x[8] = {}, y[8];
    for (uint64_t l = 0; l < many; ++l) x[l] = _mm_loadu_si128((const __m128i*)nodes + i + l);
    for (int side = 0; side < 2; ++side) {
      std::memcpy(y, x, sizeof y);
      encrypted8(y, s[side]);
      for (uint64_t l = 0; l < many; ++l)
        _mm_storeu_si128((__m128i*)out + 2 * (i + l) + side, _mm_xor_si128(y[l], x[l]));
    }
  }
}

}  // extern "C"

#endif
