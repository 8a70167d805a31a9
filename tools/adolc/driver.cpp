// Abs-normal forms and active gradients by ADOL-C of the programs on standard input, as JSON on standard output.
//
// A program is read as
//
//     program <number of variables> <number of steps> <number of directions>
//     x_1 ... x_n
//     one step a line; a, b, ... are numbers of steps, m is how many follow
//         input i | linear c m c_1 a_1 ... | mul m a b | relu m a | abs m a | max m a ... | min m a ... |
//         sort m a ... | item k s | clamp low high a
//     one direction a line: n numbers
//
// The names of ADOL-C are kept: z = cz + Z d + L |z|, y = cy + Y d + J |z|. (Griewank writes J for Y and Y for J.)

#include <adolc/adolc.h>
#include <adolc/drivers/psdrivers.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

namespace {

const short TAG = 1;

struct Step {
    std::string name;
    std::vector<double> numbers;
    std::vector<int> operands;
};

// A matrix with the row pointers that ADOL-C asks for.
struct Matrix {
    Matrix(int rows, int columns) : columns(columns), entries((rows + 1) * (columns + 1)), pointers(rows + 1) {
        for (int i = 0; i <= rows; i++) pointers[i] = entries.data() + i * (columns + 1);
    }
    int columns;
    std::vector<double> entries;
    std::vector<double *> pointers;
};

void fail(const std::string &why) {
    std::cerr << why << std::endl;
    std::exit(1);
}

Step read_step() {
    Step step;
    std::cin >> step.name;
    double number = 0;
    int operand = 0, m = 1;
    if (step.name == "input" || step.name == "item" || step.name == "linear") {
        std::cin >> number;
        step.numbers.push_back(number);
    } else if (step.name == "clamp") {
        for (int i = 0; i < 2; i++) {
            std::cin >> number;
            step.numbers.push_back(number);
        }
    }
    if (step.name == "input") return step;
    if (step.name != "item" && step.name != "clamp") std::cin >> m;
    for (int i = 0; i < m; i++) {
        if (step.name == "linear") {
            std::cin >> number;
            step.numbers.push_back(number);
        }
        std::cin >> operand;
        step.operands.push_back(operand);
    }
    if (!std::cin) fail("cannot read a step " + step.name);
    return step;
}

// Record one step; a sort has several results, every other step one.
std::vector<adouble> run(const Step &step, const std::vector<std::vector<adouble>> &results,
                         const std::vector<adouble> &x) {
    std::vector<adouble> terms;
    for (int a : step.operands) terms.push_back(results[a][0]);
    if (step.name == "input") return {x[int(step.numbers[0])]};
    if (step.name == "linear") {
        adouble total = step.numbers[0];
        for (size_t i = 0; i < terms.size(); i++) total += step.numbers[i + 1] * terms[i];
        return {total};
    }
    if (step.name == "mul") return {terms[0] * terms[1]};
    if (step.name == "abs") return {fabs(terms[0])};
    if (step.name == "relu") return {fmax(terms[0], 0.0)};
    if (step.name == "clamp") return {fmin(fmax(terms[0], step.numbers[0]), step.numbers[1])};
    if (step.name == "item") return {results[step.operands[0]][int(step.numbers[0])]};
    if (step.name == "max" || step.name == "min") {
        adouble best = terms[0];
        for (size_t i = 1; i < terms.size(); i++) {
            adouble next = step.name == "max" ? fmax(best, terms[i]) : fmin(best, terms[i]);
            best = next;
        }
        return {best};
    }
    if (step.name == "sort") {
        for (size_t end = terms.size() - 1; end > 0; end--)
            for (size_t k = 0; k < end; k++) {
                adouble gap = fabs(terms[k] - terms[k + 1]), sum = terms[k] + terms[k + 1];
                terms[k] = (sum - gap) / 2.0;
                terms[k + 1] = (sum + gap) / 2.0;
            }
        return terms;
    }
    fail("unknown step " + step.name);
    return {};
}

void print(const std::vector<double> &values, int n) {
    std::printf("[");
    for (int i = 0; i < n; i++) std::printf("%s%.17g", i ? "," : "", values[i] + 0.0);
    std::printf("]");
}

void print(const char *name, Matrix &matrix, int rows) {
    std::printf(",\"%s\":[", name);
    for (int i = 0; i < rows; i++) {
        if (i) std::printf(",");
        double *row = matrix.pointers[i];
        print(std::vector<double>(row, row + matrix.columns), matrix.columns);
    }
    std::printf("]");
}

// directional_active_gradient ends the process where min(n, 5) directions leave a switching variable without a sign
// (and writes past its n x n array before that): look first, with the same directions.
bool has_signature(int n, int s, std::vector<double> &x, const std::vector<double> &d) {
    Matrix seeds(n, n), gradient(1, n), switches(s, n);
    std::vector<double> z(s + 1);
    std::vector<short> sigma(s + 1);
    double y = 0;
    int largest = 0, next = 0;
    for (int i = 0; i < n; i++) {
        seeds.pointers[i][0] = d[i];
        if (std::fabs(d[i]) > std::fabs(d[largest])) largest = i;
    }
    for (int k = 1; k <= std::min(n, 5); k++) {
        fov_pl_forward(TAG, 1, n, k, x.data(), seeds.pointers.data(), &y, gradient.pointers.data(), z.data(),
                       switches.pointers.data(), sigma.data());
        int signs = 0;
        for (int i = 0; i < s; i++) signs += std::abs(sigma[i]);
        if (signs == s) return true;
        if (next == largest) next++;
        if (next < n && k < n) seeds.pointers[next++][k] = 1;
    }
    return false;
}

void along(int n, int s, std::vector<double> &x, std::vector<double> &d) {
    std::vector<double> z(s + 1), dz(s + 1), gradient(n);
    double y = 0, dy = 0;
    fos_pl_forward(TAG, 1, n, x.data(), d.data(), &y, &dy, z.data(), dz.data());
    std::printf("{\"d\":");
    print(d, n);
    std::printf(",\"increment\":%.17g", dy + 0.0);
    if (has_signature(n, s, x, d)) {
        std::vector<short> sigma(s + 1);
        directional_active_gradient(TAG, n, x.data(), d.data(), gradient.data(), sigma.data());
        std::printf(",\"gradient\":");
        print(gradient, n);
        std::printf(",\"sigma\":");
        print(std::vector<double>(sigma.begin(), sigma.end()), s);
    } else {
        std::printf(",\"gradient\":null,\"sigma\":null");
    }
    std::printf("}");
}

void serve(int n, int length, int directions) {
    std::vector<double> x(n);
    for (double &entry : x) std::cin >> entry;
    trace_on(TAG);
    {
        std::vector<adouble> inputs(n);
        for (int i = 0; i < n; i++) inputs[i] <<= x[i];
        std::vector<std::vector<adouble>> results;
        for (int k = 0; k < length; k++) results.push_back(run(read_step(), results, inputs));
        double value = 0;
        results.back()[0] >>= value;
    }
    trace_off();
    int s = get_num_switches(TAG);
    std::vector<double> y(1), z(s + 1), cz(s + 1), cy(1);
    Matrix Y(1, n), J(1, s), Z(s, n), L(s, s);
    abs_normal(TAG, 1, n, s, x.data(), y.data(), z.data(), cz.data(), cy.data(), Y.pointers.data(), J.pointers.data(),
               Z.pointers.data(), L.pointers.data());
    std::printf("{\"y\":%.17g,\"z\":", y[0] + 0.0);
    print(z, s);
    std::printf(",\"cz\":");
    print(cz, s);
    std::printf(",\"cy\":%.17g", cy[0] + 0.0);
    print("Z", Z, s);
    print("L", L, s);
    print("Y", Y, 1);
    print("J", J, 1);
    std::printf(",\"along\":[");
    for (int i = 0; i < directions; i++) {
        std::vector<double> d(n);
        for (double &entry : d) std::cin >> entry;
        if (i) std::printf(",");
        along(n, s, x, d);
    }
    std::printf("]}");
    // A tape that is recorded again keeps a buffer for as many switching variables as it had before, and overruns it.
    removeTape(TAG, ADOLC_REMOVE_COMPLETELY);
}

}  // namespace

int main() {
    std::string word;
    int n = 0, length = 0, directions = 0;
    bool first = true;
    enableMinMaxUsingAbs();
    std::printf("[");
    while (std::cin >> word >> n >> length >> directions) {
        if (word != "program") fail("expected a program, found " + word);
        std::printf(first ? "\n" : ",\n");
        first = false;
        serve(n, length, directions);
    }
    std::printf("\n]\n");
    return 0;
}
