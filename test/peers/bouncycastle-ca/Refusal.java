/** A reason not to do what a message asks for, as the sender is told. */
final class Refusal extends Exception {
    final int failInfo;

    Refusal(int failInfo, String text) {
        super(text);
        this.failInfo = failInfo;
    }
}
