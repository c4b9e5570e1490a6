// C++ with two inlined functions, an exception on its way, a virtual call and an algorithm of the library that calls back.
#include "key.h"
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

static volatile uint64_t sink;

__attribute__((always_inline)) static inline void inlined_first(uint64_t rounds) {
    uint64_t x = sink;
    for (uint64_t i = 0; i < rounds; i++) {
        x = x * 3 + i;
        __asm__ volatile("" : "+r"(x));
    }
    sink = x;
}

__attribute__((always_inline)) static inline void inlined_second(uint64_t rounds) {
    uint64_t x = sink;
    for (uint64_t i = 0; i < rounds; i++) {
        x = (x ^ i) * 5;
        __asm__ volatile("" : "+r"(x));
    }
    sink = x;
}

APART static uint64_t both(uint64_t first, uint64_t second, uint64_t &first_ns) {
    uint64_t begin = cpu_ns();
    inlined_first(first);
    first_ns += cpu_ns() - begin;
    begin = cpu_ns();
    inlined_second(second);
    return cpu_ns() - begin;
}

struct Shape {
    virtual ~Shape() = default;
    virtual void virtual_part() = 0;
};

struct Square : Shape {
    std::vector<uint32_t> numbers = std::vector<uint32_t>(2000);
    APART void virtual_part() override {
        uint32_t x = 1;
        for (auto &n : numbers) n = x = x * 1664525u + 1013904223u;
        std::sort(numbers.begin(), numbers.end(), [](uint32_t a, uint32_t b) { return a < b; });
        sink += numbers[7];
    }
};

APART static void throwing_part(int depth) {
    if (depth > 0) {
        throwing_part(depth - 1);
        sink = sink + 1;
    } else {
        throw depth;
    }
}

APART static void catching_part() {
    for (int i = 0; i < 20; i++) {
        try {
            throwing_part(8);
        } catch (int) {
            sink = sink + 1;
        }
    }
}

int main(int argc, char **argv) {
    uint64_t length = argc > 1 ? strtoull(argv[1], nullptr, 10) * 1000000u : 1000000000u;
    uint64_t first = 0, second = 0, shape = 0, caught = 0;
    Shape *square = new Square;
    say("ready");
    while (first + second + shape + caught < length) {
        second += both(400000, 200000, first);
        uint64_t begin = cpu_ns();
        for (int i = 0; i < 5; i++) square->virtual_part();
        shape += cpu_ns() - begin;
        begin = cpu_ns();
        catching_part();
        caught += cpu_ns() - begin;
    }
    std::string text = "{\"inlined_first\":" + std::to_string(first) + ",\"inlined_second\":" + std::to_string(second) +
                       ",\"virtual_part\":" + std::to_string(shape) + ",\"catching_part\":" + std::to_string(caught) + "}";
    say(text.c_str());
    return 0;
}
