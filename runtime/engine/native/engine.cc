// The vector engine: runs a stage, given as bytecode, over blocks that stay in the first-level cache.
//
// A program has arrays (inputs, outputs, temporaries, constants, keystreams) and segments: loops of element-wise
// operations, and calls on whole arrays. A loop passes over its `units`, a block of them at a time; what it computes
// in between lies in registers of one block. A program for one unit of 64 elements runs on any number of them:
// `factor`. Code is checked before it comes here (runtime/engine/check.py); no operation depends on the values.

#include "engine.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>

extern "C" {
int spuvm_aes_level();
void spuvm_aes_ctr(int level, const uint8_t* schedule, uint8_t* out, uint64_t nbytes, uint64_t high, uint64_t low);
}

namespace {

constexpr int64_t kThreadsPay = 1 << 18;  // element operations below which no other thread is woken
constexpr int64_t kFaster = 4;            // times that machine code of a loop is, at least

// Where the bytes of a keystream come from: a key schedule and its first block, or ready bytes at `low`.
struct Draw {
  const uint8_t* schedule;
  uint64_t high, low;
};

enum Source { kInput, kOutput, kTemporary, kConstant, kStream };

struct Array {
  Source source;
  int64_t where, bytes;  // number of the input, output or stream; byte in the arena or among the constants
};

enum Mode { kNone, kRegister, kArray, kScalar };

struct Operand {
  Mode mode;
  int64_t where, offset, step;  // register: byte of a unit's; array: its number; bytes a unit
};

struct Instruction {
  Function function;
  int64_t elements;  // of each unit
  Operand d, operand[3];
  int view = -1;     // a load through a view instead of a function
  int width = 0;     // of its elements, or of the stream's
};

// Machine code of a loop, made by compiler/fuse: takes `units` units of all arrays from unit `first` on. `draw` writes
// bytes of a stream; `scratch` is memory of this thread's.
typedef void (*DrawTo)(void* context, int64_t array, uint8_t* to, int64_t first, int64_t bytes);
typedef void (*Fused)(void* const* arrays, uint8_t* scratch, DrawTo draw, void* context, int64_t first, int64_t units);

// An array of a loop, one element a unit, that nobody reads but to fold all of it into one element: it is never whole.
struct Fold {
  int64_t array, width, to, offset;
  Function function;
};

struct Segment {
  int kind;  // 0: a loop
  Fused fused = nullptr;
  int64_t units, block, scratch, work;
  std::vector<Instruction> code;
  std::vector<Fold> folds;
  std::vector<View> views;
  std::vector<int64_t> parameters;
};

struct Program {
  std::vector<Array> arrays;
  std::vector<Segment> segments;
  std::vector<uint8_t> constants;
  int64_t arena = 0;
  int inputs = 0, outputs = 0;
};

std::atomic<int> level{best_level()};

struct Reader {
  const int64_t* at;
  int64_t next() { return *at++; }
};

View read_view(Reader& from) {
  View view;
  view.array = from.next();
  view.offset = from.next();
  view.rank = (int)from.next();
  for (int i = 0; i < view.rank; ++i) {
    view.size[i] = from.next();
    view.stride[i] = from.next();
  }
  return view;
}

Operand read_operand(Reader& from) {
  Operand o;
  o.mode = (Mode)from.next();
  o.where = from.next();
  o.offset = from.next();
  o.step = from.next();
  return o;
}

Instruction read_instruction(Reader& from, Segment& segment, const Loops& table) {
  Instruction out;
  const int64_t code = from.next();
  out.elements = from.next();
  out.width = (int)from.next();
  out.d = read_operand(from);
  for (auto& o : out.operand) o = read_operand(from);
  out.function = nullptr;
  if (code >= 0) {
    const Operation& operation = table.operations[code];
    const bool scalar = operation.scalar && out.operand[1].mode == kScalar;
    out.function = scalar ? operation.scalar : operation.vector;
  } else if (code == -1) {
    out.view = (int)segment.views.size();
    segment.views.push_back(read_view(from));
  }
  return out;
}

Segment read_segment(Reader& from, const Loops& table) {
  Segment out;
  out.kind = (int)from.next();
  if (out.kind == 0) {
    out.units = from.next();
    out.block = from.next();
    out.scratch = from.next();
    out.work = 0;
    for (int64_t n = from.next(); n > 0; --n) {
      out.code.push_back(read_instruction(from, out, table));
      out.work += out.code.back().elements;
    }
    for (int64_t n = from.next(); n > 0; --n) {
      Fold fold;
      fold.function = table.operations[from.next()].vector;
      for (int64_t* word : {&fold.width, &fold.array, &fold.to, &fold.offset}) *word = from.next();
      out.folds.push_back(fold);
    }
    return out;
  }
  for (int64_t n = from.next(); n > 0; --n) out.views.push_back(read_view(from));
  for (int64_t n = from.next(); n > 0; --n) out.parameters.push_back(from.next());
  return out;
}

constexpr int64_t kLine = 64;

// Memory that a thread keeps: registers of a loop, or the temporaries of a program.
class Memory {
 public:
  uint8_t* of(int64_t bytes) {
    if (bytes > size_) {
      size_ = std::max<int64_t>(bytes, 2 * size_);
      memory_.reset(static_cast<uint8_t*>(::operator new(size_, std::align_val_t{kLine})));
    }
    return memory_.get();
  }
  void keep_below(int64_t bytes) {
    if (size_ > bytes) {
      memory_.reset();
      size_ = 0;
    }
  }

 private:
  struct Free {
    void operator()(uint8_t* p) const { ::operator delete(p, std::align_val_t{kLine}); }
  };
  std::unique_ptr<uint8_t, Free> memory_;
  int64_t size_ = 0;
};

void draw(const Draw& from, uint8_t* to, int64_t first, int64_t bytes) {
  if (!from.schedule) {
    std::memcpy(to, (const uint8_t*)from.low + first, bytes);
    return;
  }
  const uint64_t low = from.low + (uint64_t)first / 16;
  spuvm_aes_ctr(spuvm_aes_level(), from.schedule, to, bytes, from.high + (low < from.low), low);
}

// The folds of a part of a loop: each array lies in a block's memory, which is folded into a block of results.
class Folding {
 public:
  Folding(const Segment& s, const std::vector<uint8_t*>& base, Memory& memory) : s_(s), whole_(base.data()) {
    if (s.folds.empty()) return;
    base_ = base;
    blocks_ = memory.of(2 * kWidest * s.block * (int64_t)s.folds.size() + kLine);
  }

  // The memory of all arrays for the block from unit `first` on.
  uint8_t* const* before(int64_t first) {
    if (s_.folds.empty()) return whole_;
    for (size_t i = 0; i < s_.folds.size(); ++i) base_[s_.folds[i].array] = block(2 * i) - first * s_.folds[i].width;
    return base_.data();
  }

  void after(int64_t units) {
    for (size_t i = 0; i < s_.folds.size(); ++i) {
      const Fold& f = s_.folds[i];
      if (!units_)
        std::memcpy(block(2 * i + 1), block(2 * i), units * f.width);
      else
        f.function(block(2 * i + 1), block(2 * i + 1), block(2 * i), nullptr, units);
    }
    if (!units_) units_ = units;  // of the first block: no later one is longer
  }

  // Into the results, which other parts have `begun` or not.
  void finish(bool begun) {
    for (size_t i = 0; i < s_.folds.size(); ++i) {
      const Fold& f = s_.folds[i];
      uint8_t *part = block(2 * i + 1), *to = whole_[f.to] + f.offset;
      fold(f.function, f.width, part, units_);
      if (begun)
        f.function(to, to, part, nullptr, 1);
      else
        std::memcpy(to, part, f.width);
    }
  }

 private:
  static constexpr int64_t kWidest = 8;

  uint8_t* block(size_t i) { return blocks_ + (int64_t)i * kWidest * s_.block; }

  const Segment& s_;
  uint8_t* const* whole_;
  std::vector<uint8_t*> base_;
  uint8_t* blocks_ = nullptr;
  int64_t units_ = 0;
};

class Run {
 public:
  Run(const Program& program, int64_t factor, void* const* arrays, const Draw* draws, int threads)
      : program_(program), factor_(factor), draws_(draws), threads_(threads), loops_(loops(level)) {
    thread_local Memory memory;
    uint8_t* arena = memory.of(program.arena * factor + kLine);
    base_.reserve(program.arrays.size());
    for (const Array& a : program.arrays) switch (a.source) {
        case kInput: base_.push_back((uint8_t*)arrays[a.where]); break;
        case kOutput: base_.push_back((uint8_t*)arrays[program.inputs + a.where]); break;
        case kTemporary: base_.push_back(arena + a.where * factor); break;
        case kConstant: base_.push_back((uint8_t*)program.constants.data() + a.where); break;
        case kStream: base_.push_back(nullptr); break;
      }
    for (const Segment& s : program.segments) s.kind == 0 ? loop(s) : whole(s);
    memory.keep_below(int64_t{64} << 20);
  }

 private:
  void whole(const Segment& s) {
    const Context context{base_.data(), threads_, loops_};
    call(s.kind, s.parameters, s.views, context);
  }

  void loop(const Segment& s) {
    const int64_t units = s.units * factor_;
    if (units == 0) return;
    const int64_t chunks = (units + s.block - 1) / s.block;
    bool begun = false;  // whether a part of the loop has folded
    auto blocks = [&](int64_t from, int64_t to) {
      thread_local Memory memory, of_folds;
      uint8_t* scratch = memory.of(s.scratch * s.block + kLine);
      Folding folding(s, base_, of_folds);
      for (int64_t c = from; c < to; ++c) {
        const int64_t first = c * s.block, here = std::min(s.block, units - first);
        uint8_t* const* base = folding.before(first);
        if (s.fused)
          s.fused((void* const*)base, scratch, draw_to, this, first, here);
        else
          block(s, base, scratch, first, here);
        folding.after(here);
      }
      if (!s.folds.empty()) {
        const std::lock_guard<std::mutex> one_at_a_time(folded_);
        folding.finish(begun);
        begun = true;
      }
    };
    const int64_t work = s.work * units / (s.fused ? kFaster : 1);
    if (threads_ <= 1 || chunks == 1 || work < kThreadsPay) return blocks(0, chunks);
    const int64_t pieces = std::min<int64_t>(chunks, 8 * threads_);
    parallel_for(threads_, pieces, [&](int64_t i) { blocks(i * chunks / pieces, (i + 1) * chunks / pieces); });
  }

  static void draw_to(void* run, int64_t array, uint8_t* to, int64_t first, int64_t bytes) {
    const Run& self = *static_cast<Run*>(run);
    draw(self.draws_[self.program_.arrays[array].where], to, first, bytes);
  }

  void block(const Segment& s, uint8_t* const* base, uint8_t* scratch, int64_t first, int64_t units) {
    auto at = [&](const Operand& o) -> uint8_t* {
      switch (o.mode) {
        case kRegister: return scratch + o.where * s.block;
        case kArray: return base[o.where] + o.offset + first * o.step;
        case kScalar: return base[o.where] + o.offset;
        default: return nullptr;
      }
    };
    for (const Instruction& i : s.code) {
      const int64_t n = units * i.elements;
      uint8_t* d = at(i.d);
      if (i.function) {
        i.function(d, at(i.operand[0]), at(i.operand[1]), at(i.operand[2]), n);
      } else if (i.view >= 0) {
        const View& view = s.views[i.view];
        load(view, base[view.array], i.width, first * i.elements, n, d);
      } else {
        draw(draws_[program_.arrays[i.operand[0].where].where], d, first * i.elements * i.width, n * i.width);
      }
    }
  }

  const Program& program_;
  const int64_t factor_;
  const Draw* draws_;
  const int threads_;
  const Loops loops_;
  std::vector<uint8_t*> base_;
  std::mutex folded_;
};

// A straight piece of a party's program on small arrays: what each of its rounds does, in order. Registers lie at
// places of `spaces`: memory that the caller gives for each run.
struct Place {
  int64_t space, offset;
};

struct Deed {
  const Program* program = nullptr;  // a stage to run; else bytes to copy, then zeros to write
  int64_t factor = 1, bytes = 0, zeros = 0;
  std::vector<Place> places;  // of the stage's arrays; else to, from
  std::vector<std::pair<int64_t, uint64_t>> draws;  // stream, block after its first
};

struct Piece {
  std::vector<std::vector<Deed>> rounds;
  size_t arrays = 0, draws = 0;  // the most of a stage
};

Place read_place(Reader& from) {
  Place place;
  place.space = from.next();
  place.offset = from.next();
  return place;
}

Deed read_deed(Reader& from) {
  Deed deed;
  deed.program = reinterpret_cast<const Program*>(from.next());
  deed.factor = from.next();
  deed.bytes = from.next();
  deed.zeros = from.next();
  for (int64_t n = from.next(); n > 0; --n) deed.places.push_back(read_place(from));
  for (int64_t n = from.next(); n > 0; --n) {
    const int64_t stream = from.next();
    deed.draws.push_back({stream, (uint64_t)from.next()});
  }
  return deed;
}

void run_round(const Piece& piece, int64_t round, uint8_t* const* spaces, const Draw* streams, int threads) {
  std::vector<void*> arrays(piece.arrays);
  std::vector<Draw> draws(piece.draws);
  for (const Deed& deed : piece.rounds[round]) {
    const auto at = [&](size_t i) { return spaces[deed.places[i].space] + deed.places[i].offset; };
    if (!deed.program) {
      if (deed.bytes) std::memcpy(at(0), at(1), deed.bytes);
      if (deed.zeros) std::memset(at(0) + deed.bytes, 0, deed.zeros);
      continue;
    }
    for (size_t i = 0; i < deed.places.size(); ++i) arrays[i] = at(i);
    for (size_t i = 0; i < deed.draws.size(); ++i) {
      const Draw& stream = streams[deed.draws[i].first];
      const uint64_t low = stream.low + deed.draws[i].second;
      draws[i] = {stream.schedule, stream.high + (low < stream.low), low};
    }
    Run(*deed.program, deed.factor, arrays.data(), draws.data(), threads);
  }
}

}  // namespace

extern "C" {

// Of all sources of the library, as setup.py found them (runtime/ring/native_sources.py).
#ifndef SPUVM_SOURCES
#define SPUVM_SOURCES ""
#endif
const char* spuvm_sources() { return SPUVM_SOURCES; }

// A piece from words, as runtime/machine/small.py writes them; the programs that it names must outlive it.
void* spuvm_engine_piece_new(const int64_t* words) {
  Reader from{words};
  auto piece = std::make_unique<Piece>();
  for (int64_t n = from.next(); n > 0; --n) {
    piece->rounds.emplace_back();
    for (int64_t deeds = from.next(); deeds > 0; --deeds) {
      piece->rounds.back().push_back(read_deed(from));
      piece->arrays = std::max(piece->arrays, piece->rounds.back().back().places.size());
      piece->draws = std::max(piece->draws, piece->rounds.back().back().draws.size());
    }
  }
  return piece.release();
}

void spuvm_engine_piece_free(void* piece) { delete static_cast<Piece*>(piece); }

// Runs one round of a piece. Not 0: there is no memory.
int spuvm_engine_piece_run(const void* piece, int64_t round, void* const* spaces, const void* streams, int threads) {
  try {
    run_round(*static_cast<const Piece*>(piece), round, reinterpret_cast<uint8_t* const*>(spaces),
              static_cast<const Draw*>(streams), threads);
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}

// The names of the element-wise operations, in the order of their numbers, separated by spaces.
const char* spuvm_engine_operations() {
  static const std::string names = [] {
    std::string all;
    const Loops table = loops(0);
    for (int i = 0; i < table.count; ++i) all += (i ? " " : "") + std::string(table.operations[i].name);
    return all;
  }();
  return names.c_str();
}

// The instruction set in use: 0 plain, 1 AVX2, 2 AVX-512; programs made afterwards use `wanted`, if the processor does.
int spuvm_engine_level() { return level; }
int spuvm_engine_set_level(int wanted) { return level = std::max(0, std::min(wanted, best_level())); }

// A program from `words`, as runtime/engine/encode.py writes them, and its constants. To be freed by _free.
void* spuvm_engine_new(const int64_t* words, const uint8_t* constants, int64_t constant_bytes) {
  Reader from{words};
  auto program = std::make_unique<Program>();
  program->inputs = (int)from.next();
  program->outputs = (int)from.next();
  program->arena = from.next();
  for (int64_t n = from.next(); n > 0; --n) {
    Array a;
    a.source = (Source)from.next();
    a.where = from.next();
    a.bytes = from.next();
    program->arrays.push_back(a);
  }
  const Loops table = loops(level);
  for (int64_t n = from.next(); n > 0; --n) program->segments.push_back(read_segment(from, table));
  program->constants.assign(constants, constants + constant_bytes);
  return program.release();
}

// From now on machine code runs a loop of the program, which does not run yet.
void spuvm_engine_fuse(void* program, int64_t segment, void* function, int64_t block, int64_t scratch) {
  Segment& s = static_cast<Program*>(program)->segments[segment];
  s.fused = reinterpret_cast<Fused>(function);
  s.block = block;
  s.scratch = scratch;
}

void spuvm_engine_free(void* program) { delete static_cast<Program*>(program); }

// Runs a program: `arrays` are its inputs, then its outputs. Not 0: there is no memory.
int spuvm_engine_run(const void* program, int64_t factor, void* const* arrays, const void* draws, int threads) {
  try {
    Run(*static_cast<const Program*>(program), factor, arrays, static_cast<const Draw*>(draws), threads);
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}

}  // extern "C"
