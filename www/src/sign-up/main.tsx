import { render } from 'preact';
import { SignUp } from './app.tsx';
import '../style.css';
import '../parts/form.css';

const root = document.getElementById('app');
if (root) render(<SignUp />, root);
